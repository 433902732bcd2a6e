"""How fast a model of the base size translates: nmt and CTranslate2, same weights, same sentences.

    python benchmarks/decoding.py --model runs/multi30k-en-de/model --source test.en --reference test.de
    python benchmarks/decoding.py --device cuda --batches 64,512,1024 --sentences 20000 --model …

A small trained model is widened to the base size of the paper (6+6 layers, 512, 8 heads, 2,048), which changes nothing
that it says (`benchmarks/widening.py`), so it stops by itself at the lengths of real text. CTranslate2 gets the same
weights from `nmt export`. Each engine has what processes and threads it is fastest with: ours two processes of one
thread each, CTranslate2 one process with two workers of one thread each. All are loaded and warm before time is taken;
they take turns, `--rounds` times, one at a time, and each figure is the median. Memory is the most that all processes
of an engine held, BLEU is sacreBLEU's on all sentences. Latency is the median time of a sentence alone.

On a GPU these are nmt with and without CUDA graphs, CTranslate2 in fp16 if its wheel can use the GPU, and Hugging
Face's `generate` if transformers is there; whoever does not start is left out. Memory is then what PyTorch had of the
GPU's, and unknown of CTranslate2.

The last line is a JSON object of all figures. Ratios carry over to other machines, times do not.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

BASE = {"layers": 6, "d_model": 512, "heads": 8, "d_ffn": 2048, "positions": "learned", "max_positions": 512}
PENALTY = 1.0  # |Y|^1 is what CTranslate2 has too


class Engine(NamedTuple):
    """A way to translate: who, in which precision, on how many processes of how many workers and threads."""

    name: str
    precision: str
    processes: int = 1
    workers: int = 1
    threads: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    device: str = "cpu"

    @property
    def label(self) -> str:
        """Its name and precision, and what is special about it."""
        special = " ".join(value for _, value in self.environment)
        return f"{self.name} {self.precision}{' ' if special else ''}{special}"


AVX512 = (("CT2_FORCE_CPU_ISA", "AVX512"),)
ENGINES = (
    Engine("nmt", "int8", processes=2),
    Engine("nmt", "fp32", processes=2),
    Engine("ctranslate2", "int8", workers=2),
    Engine("ctranslate2", "int8", workers=2, environment=AVX512),
    Engine("ctranslate2", "float32", workers=2),
)
ON_GPU = (
    Engine("nmt", "bf16", device="cuda"),
    Engine("nmt without graphs", "bf16", device="cuda"),
    Engine("ctranslate2", "float16", device="cuda"),
    Engine("transformers", "bf16", device="cuda"),
)


class Way(NamedTuple):
    """How all engines translate: the beam, and how many sentences at once."""

    beam: int
    batch: int


Translate = Callable[[list[str], Way], tuple[list[str], int]]
"""Gives the translations of lines, and how many tokens they have, EOS among them."""


def of_nmt(folder: Path, engine: Engine) -> Translate:
    """Translates by nmt."""
    import torch

    from nmt.translation import Translator

    torch.set_num_threads(engine.threads)
    translator = Translator.load(folder, engine.device, engine.precision)
    translator.static = engine.device == "cuda" and engine.name == "nmt"

    def translate(lines: list[str], way: Way) -> tuple[list[str], int]:
        how: dict[str, Any] = {
            "beam": way.beam,
            "batch_size": way.batch,
            "length_penalty": PENALTY,
            "penalty_form": "power",
        }
        how |= {"on_suspect": "off"}  # CTranslate2 does not look either
        texts = translator.translate(lines, **how)
        return texts, len(texts) + sum(map(len, translator.tokenizers.target.encode(texts)))

    return translate


def of_ctranslate2(folder: Path, engine: Engine) -> Translate:
    """Translates by CTranslate2, from the same pieces of words."""
    import ctranslate2
    import sentencepiece

    translator = ctranslate2.Translator(
        str(folder),
        engine.device,
        compute_type=engine.precision,
        inter_threads=engine.workers,
        intra_threads=engine.threads,
    )
    pieces = sentencepiece.SentencePieceProcessor(str(next(folder.glob("*.model"))))

    def translate(lines: list[str], way: Way) -> tuple[list[str], int]:
        found = translator.translate_batch(
            pieces.encode(lines, out_type=str), beam_size=way.beam, max_batch_size=way.batch, length_penalty=PENALTY
        )
        best = [result.hypotheses[0] for result in found]
        return [pieces.decode(tokens) for tokens in best], len(best) + sum(map(len, best))

    return translate


def of_transformers(folder: Path, engine: Engine) -> Translate:
    """Translates by Hugging Face's `generate`."""
    import torch

    from as_marian import loaded, translate

    precision = torch.bfloat16 if engine.precision == "bf16" else torch.float32
    model, tokenizers = loaded(folder, engine.device, precision)
    return lambda lines, way: translate(model, tokenizers, lines, way.beam, way.batch, PENALTY)


MAKERS = {"ctranslate2": of_ctranslate2, "transformers": of_transformers}


def serve(engine: Engine, folder: Path) -> None:
    """Answers requests from standard input, JSON lines, until it ends."""
    translate = MAKERS.get(engine.name, of_nmt)(folder, engine)
    translate(["a"], Way(1, 1))  # some look for what they need on a GPU only then
    print("ready", flush=True)
    for request in map(json.loads, sys.stdin):
        lines, way = request["lines"], Way(*request["way"])
        times: list[float] = []
        texts: list[str] = []
        tokens = 0
        for part in [lines] if way.batch > 1 else [[line] for line in lines]:
            begin = time.perf_counter()
            found, count = translate(part, way)
            times.append(time.perf_counter() - begin)
            texts, tokens = texts + found, tokens + count
        print(json.dumps({"times": times, "texts": texts, "tokens": tokens, "memory": most_memory(engine)}), flush=True)


def most_memory(engine: Engine) -> float:
    """The most memory that this process ever held, in MB: the GPU's, where it computes there."""
    if engine.device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved() / 1e6 if engine.name != "ctranslate2" else float("nan")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Absent(RuntimeError):
    """An engine that this machine lacks."""


class Running:
    """An engine in processes of its own."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        environment = os.environ | {"OMP_NUM_THREADS": str(engine.threads)} | dict(engine.environment)
        command = [sys.executable, __file__, "--serve", json.dumps(engine), "--model", str(folder)]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(engine.processes)
        ]
        for process in self._processes:
            assert process.stdout
            if process.stdout.readline() != "ready\n":
                raise Absent(f"{engine.label} does not start")

    def translate(self, lines: Sequence[str], way: Way) -> dict[str, Any]:
        """What became of these lines, and the seconds from asking for them to the last answer."""
        begin = time.perf_counter()
        share = len(self._processes)
        for number, process in enumerate(self._processes):
            assert process.stdin
            print(json.dumps({"lines": lines[number::share], "way": way}), file=process.stdin, flush=True)
        answers = [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]
        seconds = time.perf_counter() - begin
        texts: list[str] = [""] * len(lines)
        for number, answer in enumerate(answers):
            texts[number::share] = answer["texts"]
        return {
            "seconds": seconds,
            "texts": texts,
            "times": [each for answer in answers for each in answer["times"]],
            "tokens": sum(answer["tokens"] for answer in answers),
            "memory": sum(answer["memory"] for answer in answers),
        }

    def stop(self) -> None:
        """Ends its processes."""
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
            process.wait()


def models(small: Path, out: Path) -> dict[str, Path]:
    """The widened model for nmt, and for CTranslate2."""
    from nmt.interop import export
    from nmt.model.folder import load, save, weights_of
    from nmt.recipe import Model
    from widening import widened

    out.mkdir(parents=True, exist_ok=True)
    ours, theirs = out / "base", out / "base-ctranslate2"
    if not ours.exists():
        found = load(small)
        recipe, weights = widened(found.recipe, weights_of(found.model), Model.model_validate(BASE))
        save(ours, recipe, found.tokenizers, weights)
    if not theirs.exists() and find_spec("ctranslate2"):
        export(ours, theirs, watched=lambda batches, *_, **__: batches)
    return {engine.name: theirs if engine.name == "ctranslate2" else ours for engine in (*ENGINES, *ON_GPU)}


def started(engines: Sequence[Engine], folders: dict[str, Path]) -> Iterator[Running]:
    """These engines; on a GPU, those that start."""
    for engine in engines:
        try:
            yield Running(engine, folders[engine.name])
        except Absent as why:
            if engine.device == "cpu":
                raise
            print(f"left out: {why}", flush=True)


def measured(running: list[Running], lines: list[str], way: Way, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What became of all rounds, for each engine by its label."""
    found: dict[str, list[dict[str, Any]]] = {one.engine.label: [] for one in running}
    for number in range(rounds + 1):
        for one in running:
            result = one.translate(lines, way)
            if number:  # the first is to get warm
                found[one.engine.label].append(result)
    return found


def figures(results: list[dict[str, Any]], references: list[str]) -> dict[str, float]:
    """Medians over the rounds, and BLEU."""
    import sacrebleu

    seconds = statistics.median(result["seconds"] for result in results)
    first = results[0]
    return {
        "sentences_per_second": len(first["texts"]) / seconds,
        "tokens_per_second": first["tokens"] / seconds,
        "seconds_per_sentence": statistics.median(each for result in results for each in result["times"]),
        "memory_mb": results[-1]["memory"],
        "bleu": sacrebleu.corpus_bleu(first["texts"], [references], tokenize="none", force=True).score,
    }


def table(found: dict[str, dict[str, float]]) -> Iterator[str]:
    """The figures as Markdown."""
    yield "| engine | sentences/s | tokens/s | memory, MB | BLEU |"
    yield "|---|--:|--:|--:|--:|"
    for label, one in found.items():
        rates = f"{one['sentences_per_second']:.1f} | {one['tokens_per_second']:,.0f}"
        yield f"| {label} | {rates} | {one['memory_mb']:,.0f} | {one['bleu']:.2f} |"


def lines_of(path: Path, count: int) -> list[str]:
    """So many lines of a text, packed or not; from its beginning again where it has fewer."""
    from nmt.text import read_lines

    return list(islice(cycle(list(read_lines(path))), count))


def main() -> int:
    """Measures, prints tables and the JSON object; gives the exit code."""
    parser = argparse.ArgumentParser(description="How fast a model of the base size translates.")
    parser.add_argument("--model", type=Path, required=True, help="a small trained model folder, post-norm")
    parser.add_argument("--source", type=Path, help="sentences to translate")
    parser.add_argument("--reference", type=Path, help="their references")
    parser.add_argument("--out", type=Path, default=Path("runs/decoding"), help="where the widened models lie")
    parser.add_argument("--rounds", type=int, default=5, help="how often each engine translates all")
    parser.add_argument("--sentences", type=int, default=1000, help="how many of the sentences are translated")
    parser.add_argument("--batches", default="32,64,128", help="sentences at once, each tried; an engine's best counts")
    parser.add_argument("--beams", default="4,1", help="beams")
    parser.add_argument("--alone", type=int, default=50, help="of how many sentences the latency is taken")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to translate")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        name, precision, processes, workers, threads, environment, device = json.loads(given.serve)
        serve(Engine(name, precision, processes, workers, threads, tuple(environment), device), given.model)
        return 0
    sources, references = (lines_of(path, given.sentences) for path in (given.source, given.reference))
    folders = models(given.model, given.out)
    engines = ON_GPU if given.device == "cuda" else ENGINES
    running = list(started(engines, folders))
    report: dict[str, Any] = {}
    for beam in map(int, given.beams.split(",")):
        for batch in map(int, given.batches.split(",")):
            way = Way(beam, batch)
            results = measured(running, sources, way, given.rounds)
            found = {label: figures(each, references) for label, each in results.items()}
            report[f"beam {beam}, batch {batch}"] = found
            print(f"\nbeam {beam}, batches of {batch}\n", *table(found), sep="\n", flush=True)
    report["latency"] = dict(latencies([one.engine for one in running], folders, sources[: given.alone], given.rounds))
    print(json.dumps(report))
    return 0


def latencies(
    engines: Sequence[Engine], folders: dict[str, Path], lines: list[str], rounds: int
) -> Iterator[tuple[str, float]]:
    """Of each engine alone in one process, on a CPU with one thread and with two, milliseconds for a sentence."""
    alone = [
        engine._replace(processes=1, workers=1, threads=threads)
        for engine in engines
        for threads in ((1, 2) if engine.device == "cpu" else (1,))
    ]
    print("\na sentence alone, beam 4, milliseconds\n")
    for engine in alone:
        running = Running(engine, folders[engine.name])
        results = [running.translate(lines, Way(4, 1)) for _ in range(rounds + 1)][1:]
        running.stop()
        found = 1000 * statistics.median(each for result in results for each in result["times"])
        print(f"{engine.label}, threads: {engine.threads}: {found:.1f}", flush=True)
        yield f"{engine.label}, threads: {engine.threads}", found


if __name__ == "__main__":
    sys.exit(main())
