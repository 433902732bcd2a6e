"""Whether text is in the language it should be in, by py3langid, which is installed with nmt[langid]."""

from nmt.errors import NmtError

# Text is compared with these and the two that are expected. The nearest kin of a language (Bosnian, Galician, Nynorsk)
# are not among them, for nobody can tell a short sentence of one from the other.
_COMMON = """
    ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv nl no pl pt ro ru sk sl sv th tr uk ur vi zh
"""
_ALIASES = {"nb": "no", "iw": "he", "sh": "hr", "yue": "zh"}

_SURE = 10  # times likelier another language than the expected one


class Languages:
    """Tells the pairs that are not in their languages, where that is sure.

    Raises `NmtError` where py3langid is missing, or does not know a language.
    """

    def __init__(self, source: str, target: str) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError:
            raise NmtError("data.clean.language: py3langid is missing: pip install nmt[langid]") from None
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        known = set(self._identifier.labels)
        self._expected = [_code(language) for language in (source, target)]
        for language, code in zip((source, target), self._expected, strict=True):
            if code not in known:
                raise NmtError(f"data.clean.language: must be false, for py3langid does not know {language}")
        self._identifier.set_languages((known & {*_COMMON.split()}) | {*self._expected})

    def differ(self, source: str, target: str) -> bool:
        """Whether a side is much likelier to be in another language than in its own; swapped sides both are."""
        return self._differs(source, self._expected[0]) or self._differs(target, self._expected[1])

    def _differs(self, text: str, expected: str) -> bool:
        ranked = self._identifier.rank(text)
        best = ranked[0][1]
        return bool(ranked[0][0] != expected and best > _SURE * dict(ranked)[expected])


def _code(language: str) -> str:
    code = language.lower().replace("_", "-").split("-")[0]
    return _ALIASES.get(code, code)
