r"""Shellwords: what a shell would make of a text, without running any of it.

In:   a text that may be a command line or a script. Out: its simple commands, one a line, words apart by one space.
May import: the standard library. Must not know: which commands matter.

Undone: quotes, backslashes, `$'...'`, line continuations, brace expansion, assignments and their use (`x=rm; $x`, arrays,
positional words, defaults, substrings, replacements), `$IFS`, `$(...)` and backticks around echo and printf, aliases, here-strings.
Where the command runs words as programs (`sh -c`, `eval`, `xargs`, `ssh`, `python -c`, or `echo ... | sh`), each such word is read
as a text of its own. A blank inside a word is written as `\x01`, so that a quoted sentence is not mistaken for a command.
Why no library: shlex undoes quotes only, and full shell parsers refuse what is not a script; this reads prose without complaint.
An unknown variable is read as empty, which is what a disguise such as `r${x}m` counts on.
"""

from __future__ import annotations

import re

from midwatch.gates.encodings import unescape
from midwatch.gates.shellvars import Variables, braces

__all__ = ["BLANK", "shell"]

BLANK = "\x01"
BREAK = "\x03"  # a line break inside a word; a blank once the reading is done
CUT = "\x02"  # a blank out of an unquoted expansion: words part here
DEPTH = 4

_INSIDE = str.maketrans({" ": BLANK, "\t": BLANK, "\r": BLANK, "\n": BREAK})
_SHELLISH = re.compile(r"['\"\\$`;|&(){}<>]")
_PLAIN = re.compile(r"[^\n'\"\\$`;&|()<>]+")
_DOLLAR = re.compile(r"\$(?:\{((?:[^{}]|\$\{[^{}]{0,60}\}){0,200})\}|([A-Za-z_]\w*|[0-9@*#?$!-]))")
_ANSI = re.compile(r"\$'((?:[^'\\]|\\.){0,2000})'", re.DOTALL)
_IN_QUOTES = re.compile(r"\\(.)|\$'|\$\(|`|\$\{|\$\w|\$[@*]", re.DOTALL)
_ASSIGN = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_BANG = re.compile(r"!\w")
_FORMAT = re.compile(r"%[-0-9.]*[sbcdqi]")
_RUNNERS = re.compile(
    r"(?:ba|da|z|k|fi|a|c|tc)?sh|eval|exec|source|\.|su|sudo|doas|ssh|env|xargs|parallel|watch|timeout|nohup|setsid|time|nice|at|batch|"
    r"crontab|python[\d.]*|perl|ruby|node|nodejs|deno|bun|php|lua|awk|gawk|mawk|tclsh|pwsh|powershell|cmd(?:\.exe)?|busybox|docker|podman|"
    r"kubectl|nsenter|chroot|unshare|screen|tmux|script|expect|find|psql|mysql|sqlite3|mongosh?|redis-cli|sqlcmd|osascript|trap|"
    r"alias|function|systemd-run|flatpak-spawn|make|command|builtin|start-process|invoke-expression|iex|wsl|adb|vim?|ed|ex|m4|gdb|"
    r"stdbuf|ionice|chrt|taskset|strace|ltrace|flock|entr|nc|ncat|socat|dash|aws|gcloud|az|terraform|ansible|salt|pssh|pdsh|runuser"
)
_SAYS = re.compile(
    r"echo|printf|cat|print|tee|write-output|rev|tr|base64|xxd|sed|awk|cut|head|tail|col|openssl|base32|gunzip|zcat|tac|sort|uniq"
)
_LANGUAGES = re.compile(r"python[\d.]*|perl|ruby|node|php|lua|[gm]?awk|osascript")
_PRINTS = re.compile(r"(?:print(?:f|ln)?|puts|echo|say|write|log|-p)[\s\x01]{0,2}\(?[\s\x01]{0,2}([\"'])(.{1,200}?)\1")
_KEEPERS = re.compile(
    r"(?:\.(?:sh|bash|zsh|py|pl|rb|bat|ps1|cmd|service)|cron\S*|rc|profile|hooks?/\S+|Makefile|Jenkinsfile)$"
)


def shell(text: str) -> tuple[str, bool]:
    """Read a text as a shell would.

    Returns:
        (reading, complete). The reading is empty where there is nothing of a shell in the text. `complete` is false where the
        work bound (eight times the text) was met, or nesting went deeper than `DEPTH`.
    """
    if not _SHELLISH.search(text):
        return "", True
    reader = _Reader(8 * len(text) + 4096)
    lines = reader.read(text, 0)
    return "\n".join(lines).replace(BREAK, BLANK), reader.budget > 0 and not reader.deep


class _Reader:
    """One reading: the budget and the variables are common to every nested text."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.deep = False
        self.vars = Variables()
        self.aliases: dict[str, str] = {}

    def read(self, text: str, depth: int) -> list[str]:
        """Read one text; nested ones follow it."""
        if depth > DEPTH:
            self.deep = True
            return []
        self.budget -= len(text)
        if self.budget <= 0:
            return []
        script = _Script(self, text.replace("\\\r\n", "").replace("\\\n", ""), depth)
        script.run()
        lines = script.lines
        for nested in script.nested:
            if nested != text:
                lines.extend(self.read(nested, depth + 1))
        return lines


class _Script:
    """The reading of one text, left to right."""

    def __init__(self, reader: _Reader, text: str, depth: int) -> None:
        self.reader, self.text, self.depth = reader, text, depth
        self.at = 0
        self.word: list[str] = []
        self.open = False  # a word has begun, even if it is empty so far
        self.words: list[str] = []
        self.pipe: list[list[str]] = []
        self.lines: list[str] = []
        self.nested: list[str] = []
        self.array = ""
        self.fed = False  # a program is given what the next commands print: `bash <(echo ...)`
        self.unclosed: set[str] = set()  # quotes that have no second one further on

    def run(self) -> None:
        """Read to the end of the text, or of the budget."""
        steps = {"'": self._single, '"': self._double, "\\": self._escape, "$": self._dollar, "`": self._backtick}
        while self.at < len(self.text):
            plain = _PLAIN.match(self.text, self.at)
            if plain:
                self._plain(plain[0])
                self.at = plain.end()
                continue
            char = self.text[self.at]
            if char in steps:
                steps[char]()
            else:
                self._separator(char)
        self._end_pipe()

    def _plain(self, text: str) -> None:
        parts = text.split()
        if not parts or text[0].isspace():
            self._end_word()
        if not parts:
            return
        self._add(parts[0])
        if len(parts) > 1:
            self._end_word()
            if "{" in text:
                for part in parts[1:-1]:
                    self._add(part)
                    self._end_word()
            else:
                self.words.extend(parts[1:-1])
            self._add(parts[-1])
        if text[-1].isspace():
            self._end_word()

    def _add(self, text: str) -> None:
        self.word.append(text)
        self.open = True

    def _single(self) -> None:
        end = -1 if "'" in self.unclosed else self.text.find("'", self.at + 1)
        if end < 0:
            self.unclosed.add("'")
            self.at += 1
            return
        self._add(_blanks(self.text[self.at + 1 : end]))
        self.at = end + 1

    def _double(self) -> None:
        end = -1 if '"' in self.unclosed else _closing(self.text, self.at + 1)
        if end < 0:
            self.unclosed.add('"')
            self.at += 1
            return
        self._add(_blanks(self._quoted(self.text[self.at + 1 : end])))
        self.at = end + 1

    def _quoted(self, body: str) -> str:
        if not _IN_QUOTES.search(body):
            return body
        inner = _Script(self.reader, body, self.depth)
        said: list[str] = []
        while inner.at < len(body):
            found = _IN_QUOTES.search(body, inner.at)
            if found is None:
                said.append(body[inner.at :])
                break
            said.append(body[inner.at : found.start()])
            inner.at = found.start()
            if found[1] is not None:
                # In double quotes a backslash stays before letters; what an encoding makes of it is read elsewhere.
                said.append(found[1] if found[1] in '"\\$`\n' else found[0])
                inner.at = found.end()
            elif found[0] == "`":
                inner._backtick()
            elif found[0] == "$'":
                said.append("$'")
                inner.at = found.end()
            else:
                inner._dollar()
            said.extend(inner.word)
            inner.word.clear()
        self.lines.extend(inner.lines)
        self.nested.extend(inner.nested)
        return "".join(said)

    def _escape(self) -> None:
        self._add(_blanks(self.text[self.at + 1 : self.at + 2]))
        self.at += 2

    def _dollar(self) -> None:
        ansi = _ANSI.match(self.text, self.at)
        if ansi:
            self._add(_blanks(unescape(ansi[1].replace("\\'", "'")).replace("\\n", "\n").replace("\\t", "\t")))
            self.at = ansi.end()
            return
        if self.text.startswith("$(", self.at):
            self._substitution()
            return
        found = _DOLLAR.match(self.text, self.at)
        if found is None:
            self.at += 1  # `$"..."` and a lone dollar
            return
        value = self.reader.vars.value(found[1] if found[1] is not None else found[2])
        self.reader.budget -= len(value)
        self._add(re.sub(r"\s+", CUT, value) if self.reader.budget > 0 else "")
        self.at = found.end()

    def _substitution(self) -> None:
        end = self._paren(self.at + 2)
        if end < 0:
            self.at += 2
            self._end_command()
            return
        self._run_inside(self.text[self.at + 2 : end])
        self.at = end + 1

    def _backtick(self) -> None:
        end = -1 if "`" in self.unclosed else self.text.find("`", self.at + 1)
        if end < 0:
            self.unclosed.add("`")
            self.at += 1
            return
        self._run_inside(self.text[self.at + 1 : end])
        self.at = end + 1

    def _run_inside(self, inside: str) -> None:
        if self.depth >= DEPTH:
            self.reader.deep = True
            return
        self.reader.budget -= len(inside)
        if self.reader.budget <= 0:
            return
        script = _Script(self.reader, inside, self.depth + 1)
        script.run()
        self.lines.extend(script.lines)
        self.nested.extend(script.nested)
        said = next(filter(None, (_output(line.split(" ")) for line in script.lines)), "")
        if any(line == "rev" for line in script.lines):
            said = said[::-1]
        self._add(re.sub(r"\s+", CUT, _said(said).strip()))

    def _paren(self, start: int) -> int:
        depth, at = 1, start
        limit = min(len(self.text), start + 8192)
        while at < limit and self.reader.budget > 0:
            found = re.compile(r"[()]").search(self.text, at, limit)
            if found is None:
                break
            depth += 1 if found[0] == "(" else -1
            at = found.end()
            if depth == 0:
                self.reader.budget -= (at - start) // 4
                return at - 1
        self.reader.budget -= (limit - start) // 2 + 1
        return -1

    def _separator(self, char: str) -> None:
        if char == "(" and self.open and self.word and self.word[-1].endswith("="):
            self.array = "".join(self.word).rstrip("=+")
            self.word.clear()
            self.open = False
        elif char == ")" and self.array:
            self._end_word()
            self.reader.vars.array(self.array, self.words)
            self.array, self.words = "", []
        elif self.array and char == "\n":
            self._end_word()
        elif char in "<>":
            self._end_word()
            self.fed = self.text.startswith("<(", self.at) and bool(_RUNNERS.fullmatch(_name(self.words)))
            if self.text.startswith("<<<", self.at):
                self.words.append("<<<")
                self.at += 2
            elif char == ">":
                self.words.append(">")
        elif char == "|" and not self.text.startswith("||", self.at):
            self._end_command()
        else:
            self._end_pipe() if char != "&" or self.text[self.at - 1 : self.at] != ">" else self._end_word()
        self.at += 1

    def _end_word(self) -> None:
        if not self.open:
            return
        whole = self.word[0] if len(self.word) == 1 else "".join(self.word)
        self.word.clear()
        self.open = False
        if CUT not in whole and "{" not in whole:
            self.words.append(whole)
            return
        for part in whole.split(CUT) if CUT in whole else (whole,):
            spread = braces(part)
            self.reader.budget -= sum(map(len, spread)) if len(spread) > 1 else 0
            self.words.extend(spread)

    def _end_command(self) -> None:
        self._end_word()
        words, self.words = self.words, []
        if words:
            words = self._settled(words)
        if words:
            self.pipe.append(words)
            self.lines.append(" ".join(words))

    def _end_pipe(self) -> None:
        self._end_command()
        if not self.pipe:
            return
        pipe, self.pipe = self.pipe, []
        runs = [bool(_RUNNERS.fullmatch(_name(words))) for words in pipe]
        for place, words in enumerate(pipe):
            said = bool(_SAYS.fullmatch(_name(words)))
            if runs[place] or (said and (self.fed or any(runs[place + 1 :]) or _kept(words))):
                self._nest(words)
            if "<<<" in words[:-1]:
                self.nested.append(_said(words[words.index("<<<") + 1]))
            if "!" in self.text:
                self.nested.extend(_said(word[1:]) for word in words if _BANG.match(word))

    def _nest(self, words: list[str]) -> None:
        self.nested.extend(
            _said(word) for word in words[1:] if BLANK in word or BREAK in word or _SHELLISH.search(word)
        )
        if _name(words) in {"eval", "echo", "printf", "env"}:
            self.nested.append(_said(_output(words) or " ".join(words[1:])))

    def _settled(self, words: list[str]) -> list[str]:
        """Take assignments, `for`, `set --` and aliases out of a command's words."""
        names = self.reader.vars
        start = 0
        for word in words:
            found = _ASSIGN.fullmatch(word)
            if found:
                names.assign(found[1], _said(found[3]), more=bool(found[2]))
            elif word not in {"export", "declare", "local", "readonly", "typeset", "-r", "-x", "env", "alias"}:
                break
            start += 1
        head = words[start] if start < len(words) else ""
        if words[0] == "alias" and start:
            self._alias(words[1:])
        elif head == "for" and "in" in words[start : start + 3]:
            names.assign(words[start + 1], _said(" ".join(words[start + 3 :])))
        elif head == "set" and words[start + 1 : start + 2] == ["--"]:
            names.array("@", words[start + 2 :])
        elif head == "read" and "<<<" in words:
            self._read(words[start + 1 : words.index("<<<")], _said(words[-1]))
        elif head == "printf" and words[start + 1 : start + 2] == ["-v"] and len(words) > start + 3:
            names.assign(words[start + 2], _output(["printf", *words[start + 3 :]]))
        elif head in self.reader.aliases:
            return [*words[:start], *self.reader.aliases[head].split(" "), *words[start + 1 :]]
        return words

    def _read(self, words: list[str], line: str) -> None:
        variables = self.reader.vars
        marks = variables.value("IFS").strip()
        values = re.split(f"[{re.escape(marks)}]", line) if marks else line.split()
        names = [word for word in words if not word.startswith("-")]
        if "-a" in words or "-ra" in words:
            variables.array(names[-1] if names else "MAPFILE", values)
            return
        for place, name in enumerate(names):
            said = values[place : place + 1] if place < len(names) - 1 else values[place:]
            variables.assign(name, " ".join(said))

    def _alias(self, words: list[str]) -> None:
        for word in words:
            name, _, value = word.partition("=")
            if value and len(self.reader.aliases) < 64:
                self.reader.aliases[name] = _said(value)
                self.nested.append(_said(value))


def _blanks(text: str) -> str:
    return text.translate(_INSIDE)


def _said(word: str) -> str:
    return word.replace(BLANK, " ").replace(BREAK, "\n")


def _closing(text: str, at: int) -> int:
    while True:
        at = text.find('"', at)
        if at < 0:
            return -1
        slashes = 0
        while slashes < 64 and text[at - 1 - slashes] == "\\":
            slashes += 1
        if slashes % 2 == 0:
            return at
        at += 1


def _name(words: list[str]) -> str:
    for word in words:
        if not _ASSIGN.fullmatch(word):
            return word.rpartition("/")[2].lower()
    return ""


def _kept(words: list[str]) -> bool:
    return ">" in words[:-1] and bool(_KEEPERS.search(words[-1]))


def _output(words: list[str]) -> str:
    """What echo, printf or which would print; empty for every other command."""
    name, rest = _name(words), words[1:]
    if name in {"echo", "print", "write-output"}:
        while rest and re.fullmatch(r"-[neE]+", rest[0]):
            rest = rest[1:]
        return unescape(" ".join(rest[: rest.index(">")] if ">" in rest else rest))
    if name in {"which", "type", "command"}:
        return rest[-1] if rest else ""
    if name == "printf" and rest:
        rest = rest[1:] if rest[0] == "--" else rest
        pattern, values = (rest[0], list(rest[1:])) if rest else ("", [])
        count = max(1, len(_FORMAT.findall(pattern)))
        said = ""
        for place in range(0, max(1, min(len(values), 64)), count):
            chunk = iter(values[place : place + count])
            said += _FORMAT.sub(lambda _, chunk=chunk: next(chunk, ""), pattern)  # type: ignore[misc]
        return unescape(said.replace("\\n", " "))
    if _LANGUAGES.fullmatch(name):
        printed = _PRINTS.search(" ".join(rest))
        return unescape(printed[2]) if printed else ""
    if "<<<" in rest[:-1] and _SAYS.fullmatch(name):
        said = rest[rest.index("<<<") + 1]
        return said[::-1] if name == "rev" else said
    return ""
