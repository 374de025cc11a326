"""Parses a Corefile: text -> server blocks of directives. Only `import` does I/O: it reads files.

The syntax and the error texts are those of Caddy's v1 parser, which CoreDNS uses
(https://coredns.io/manual/configuration/). The parser knows nothing about what a directive means:
each plugin's setup reads its own lines and reports its own errors, with the file and line that
every token carries.
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
    """A word or a quoted string, and where it stands."""

    text: str
    file: str
    line: int


@dataclass(frozen=True)
class Line:
    """A directive, or a property inside a directive's braces: its words and its nested lines."""

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
    """keys: the addresses (zones and ports) in front of the opening brace."""

    keys: tuple[Token, ...]
    directives: tuple[Line, ...]


def fail(token: Token, message: str) -> NoReturn:
    raise CorefileError(f"{token.file}:{token.line} - Error during parsing: {message}")


def parse(
    text: str,
    file: str = "Corefile",
    known: frozenset[str] | None = None,
) -> list[ServerBlock]:
    """Returns the server blocks in the order of the file.

    known: the directives that exist; any other raises CorefileError. None accepts every directive.
    """
    parser = _Parser(list(tokens(text, file)), file, known)
    return parser.blocks()


def tokens(text: str, file: str) -> Iterator[Token]:
    """Yields words and quoted strings; in words, {$VAR} and {%VAR%} become the variable's value."""
    line = 1
    position = 0
    pattern = re.compile(
        r"(?P<end>\n)|(?P<space>[ \t\r]+)|(?P<comment>#[^\n]*)"
        r'|"(?P<quoted>(?:\\"|[^"])*)"|(?P<word>\S+)'
    )
    while position < len(text):
        match = pattern.match(text, position)
        assert match is not None
        position = match.end()
        if match["end"]:
            line += 1
        elif match["quoted"] is not None:
            yield Token(match["quoted"].replace('\\"', '"'), file, line)
            line += match["quoted"].count("\n")
        elif match["word"]:
            yield Token(_environment(match["word"]), file, line)


def _environment(word: str) -> str:
    return re.sub(r"\{\$([^}]+)\}|\{%([^%]+)%\}", lambda m: os.environ.get(m[1] or m[2], ""), word)


class _Parser:
    def __init__(self, stream: list[Token], file: str, known: frozenset[str] | None) -> None:
        self._stream = stream
        self._position = 0
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
        """Reads the addresses up to the opening brace; commas and line ends separate them."""
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
        """Yields the lines up to the closing brace.

        top: the lines are directives of a server block, so their names must be known.
        """
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
            while self._goes_on(first.line):
                words.append(self._next())
            token = self._peek()
            if token is not None and token.text == "{" and token.line == first.line:
                self._next()
                yield Line(tuple(words), tuple(self._lines(top=False)))
            else:
                yield Line(tuple(words))

    def _goes_on(self, line: int) -> bool:
        """Whether the next token belongs to the same line and is no brace."""
        token = self._peek()
        return token is not None and token.line == line and token.text not in ("{", "}")

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
            # _lines() reads up to a closing brace, which an imported file does not have.
            end = Token("}", pattern.file, pattern.line)
            inner = _Parser([*stream, end], pattern.file, self._known)
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
        folder = Path(pattern.file).parent
        path = Path(pattern.text)
        if path.is_absolute():
            files = sorted(Path("/").glob(str(path.relative_to("/"))))
        else:
            files = sorted(folder.glob(pattern.text))
        if not files and not any(char in pattern.text for char in "*?["):
            fail(pattern, f"File to import not found: {pattern.text}")
        streams = [list(tokens(file.read_text(), str(file))) for file in files]
        return [stream for stream in streams if stream]
