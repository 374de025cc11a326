"""The Corefile: text -> server blocks of directives. Pure but for `import`, which reads files.

Syntax and error texts are Caddy's v1 parser's, as CoreDNS uses it (https://coredns.io/manual/configuration/).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


class CorefileError(Exception):
    """`FILE:LINE - Error during parsing: WHAT`."""


@dataclass(frozen=True)
class Token:
    text: str
    file: str
    line: int


@dataclass(frozen=True)
class Line:
    """One directive or one property inside a directive's braces: its words and its own nested lines."""

    tokens: tuple[Token, ...]
    block: tuple[Line, ...] = ()

    @property
    def name(self) -> str:
        return self.tokens[0].text

    @property
    def args(self) -> tuple[str, ...]:
        return tuple(token.text for token in self.tokens[1:])

    def fail(self, message: str) -> NoReturn:
        fail(self.tokens[0], message)

    def wrong_arguments(self) -> NoReturn:
        last = self.tokens[-1]
        fail(last, f"Wrong argument count or unexpected line ending after '{last.text}'")


@dataclass(frozen=True)
class ServerBlock:
    keys: tuple[Token, ...]
    directives: tuple[Line, ...]


def fail(token: Token, message: str) -> NoReturn:
    raise CorefileError(f"{token.file}:{token.line} - Error during parsing: {message}")


def parse(text: str, file: str = "Corefile", known: frozenset[str] | None = None) -> list[ServerBlock]:
    """Server blocks in the order of the file. known: the directives there are; others are errors.
    Raises CorefileError."""
    parser = _Parser(list(tokens(text, file)), file, known)
    return parser.blocks()


def tokens(text: str, file: str) -> Iterator[Token]:
    """Words, quoted strings and line ends; {$VAR} and {%VAR%} are replaced from the environment."""
    line, position = 1, 0
    pattern = re.compile(
        r'(?P<end>\n)|(?P<space>[ \t\r]+)|(?P<comment>#[^\n]*)|"(?P<quoted>(?:\\"|[^"])*)"|(?P<word>\S+)'
    )
    while position < len(text):
        found = pattern.match(text, position)
        assert found is not None
        position = found.end()
        if found["end"]:
            line += 1
        elif found["quoted"] is not None:
            yield Token(found["quoted"].replace('\\"', '"'), file, line)
            line += found["quoted"].count("\n")
        elif found["word"]:
            yield Token(_environment(found["word"]), file, line)


def _environment(word: str) -> str:
    return re.sub(r"\{\$([^}]+)\}|\{%([^%]+)%\}", lambda m: os.environ.get(m[1] or m[2], ""), word)


class _Parser:
    def __init__(self, stream: list[Token], file: str, known: frozenset[str] | None) -> None:
        self._stream, self._position = stream, 0
        self._known = known
        self._snippets: dict[str, tuple[Line, ...]] = {}
        self._end = Token("", file, stream[-1].line if stream else 1)

    def blocks(self) -> list[ServerBlock]:
        out = []
        while self._peek() is not None:
            if self._text() == "import":
                out += self._imported_blocks()
                continue
            keys = self._keys()
            name = keys[0].text
            snippet = len(keys) == 1 and name.startswith("(") and name.endswith(")")
            directives = tuple(self._lines(top=not snippet))
            if snippet:
                if name[1:-1] in self._snippets:
                    fail(keys[0], f"redeclaration of previously declared snippet {name[1:-1]}")
                self._snippets[name[1:-1]] = directives
            else:
                out.append(ServerBlock(tuple(keys), directives))
        return out

    def _peek(self) -> Token | None:
        return self._stream[self._position] if self._position < len(self._stream) else None

    def _text(self) -> str:
        token = self._peek()
        return token.text if token else ""

    def _next(self) -> Token:
        token = self._peek()
        if token is None:
            fail(self._end, "Unexpected EOF")
        self._position += 1
        return token

    def _keys(self) -> list[Token]:
        """Addresses up to the opening brace; a comma lets the list go on in the next line."""
        keys: list[Token] = []
        while True:
            token = self._next()
            if token.text == "{":
                if not keys:
                    fail(token, "Syntax error: Unexpected token '{', expecting 'server address'")
                return keys
            if token.text == "}":
                fail(token, f"Syntax error: Unexpected token '{token.text}', expecting '{{'")
            keys += [Token(part, token.file, token.line) for part in token.text.split(",") if part]

    def _lines(self, *, top: bool) -> Iterator[Line]:
        """Up to the closing brace. top: these are directives of a server block, which must be known ones."""
        while True:
            first = self._next()
            if first.text == "}":
                return
            if first.text == "import":
                yield from self._imported_lines(first, top=top)
                continue
            if top and self._known is not None and first.text not in self._known:
                fail(first, f"Unknown directive '{first.text}'")
            words = [first]
            while (token := self._peek()) is not None and token.line == first.line and token.text not in ("{", "}"):
                words.append(self._next())
            token = self._peek()
            if token is not None and token.text == "{" and token.line == first.line:
                self._next()
                yield Line(tuple(words), tuple(self._lines(top=False)))
            else:
                yield Line(tuple(words))

    def _pattern(self, word: Token) -> Token:
        if (token := self._peek()) is None or token.line != word.line:
            fail(word, f"Wrong argument count or unexpected line ending after '{word.text}'")
        return self._next()

    def _imported_lines(self, word: Token, *, top: bool) -> Iterator[Line]:
        pattern = self._pattern(word)
        if pattern.text in self._snippets:
            yield from self._snippets[pattern.text]
            return
        for stream in self._files(pattern):
            inner = _Parser([*stream, Token("}", pattern.file, pattern.line)], pattern.file, self._known)
            inner._snippets = self._snippets
            yield from inner._lines(top=top)

    def _imported_blocks(self) -> list[ServerBlock]:
        out = []
        for stream in self._files(self._pattern(self._next())):
            inner = _Parser(stream, stream[0].file, self._known)
            inner._snippets = self._snippets
            out += inner.blocks()
        return out

    def _files(self, pattern: Token) -> list[list[Token]]:
        folder, path = Path(pattern.file).parent, Path(pattern.text)
        if path.is_absolute():
            found = sorted(Path("/").glob(str(path.relative_to("/"))))
        else:
            found = sorted(folder.glob(pattern.text))
        if not found and not any(char in pattern.text for char in "*?["):
            fail(pattern, f"File to import not found: {pattern.text}")
        streams = [list(tokens(file.read_text(), str(file))) for file in found]
        return [stream for stream in streams if stream]
