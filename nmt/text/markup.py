"""What stands in text to be copied and not written: tags, placeholders, entities, addresses, handles."""

import re

TAG = r"<[^<>\s][^<>]*>"
PLACEHOLDER = r"\$?\{\{?[^{}]*\}\}? | %(?:\d+\$|\(\w+\))?[a-zA-Z@](?!\w) | __[^\W_]+(?:_[^\W_]+)*__"
ENTITY = r"&\#?\w+;"
ADDRESS = r"(?<!\w)(?:https?://|www\.)\S*[\w/] | (?<![\w.+-])[\w.+-]+@[\w.-]+\w"
HANDLE = r"(?<!\w)[@#]\w+"

MARKUP = re.compile(f"({TAG} | {PLACEHOLDER} | {ENTITY} | {ADDRESS} | {HANDLE})", re.VERBOSE)
"""Any of them, as the one group."""
