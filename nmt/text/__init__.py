"""Text in and out of the house: lines, parallel corpora, cleaning, the tokenizer. No tensors."""

from nmt.text.arriving import Arriving, Share, count_lines, lines_of, share_of
from nmt.text.cleaning import reason_to_drop
from nmt.text.corpora import Corpus, locate, read_pairs, read_sides, tagged
from nmt.text.lines import read_lines
from nmt.text.normalise import one_line
from nmt.text.opening import keep_standard_input
from nmt.text.tokenizer import Tokenizer, Tokenizers, tokenizer_files, train_tokenizer

__all__ = [
    "Arriving",
    "Corpus",
    "Share",
    "Tokenizer",
    "Tokenizers",
    "count_lines",
    "keep_standard_input",
    "lines_of",
    "locate",
    "one_line",
    "read_lines",
    "read_pairs",
    "read_sides",
    "reason_to_drop",
    "share_of",
    "tagged",
    "tokenizer_files",
    "train_tokenizer",
]
