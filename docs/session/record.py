"""Records what a session with `holm` looks like: real commands under a pseudo-terminal, drawn as SVG. Python's own library is enough.

    python3 docs/session/record.py target/debug docs/session

writes first.svg (from nothing to a function that is tested) and dev.svg (the screen of `holm dev`).
"""

import html
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import fcntl
import time

COLUMNS, ROWS = 100, 28
COLOURS = {31: "#e06c75", 32: "#98c379", 33: "#e5c07b"}


class Terminal:
    """As much of ECMA-48 as `holm`, cargo and ratatui use."""

    def __init__(self, rows=ROWS):
        self.rows = rows
        self.clear()
        self.style = (None, False, False)

    def clear(self):
        self.lines = [[] for _ in range(self.rows)]
        self.row = self.column = 0

    def put(self, character):
        while self.row >= len(self.lines):
            self.lines.append([])
        line = self.lines[self.row]
        while len(line) <= self.column:
            line.append((" ", (None, False, False)))
        line[self.column] = (character, self.style)
        self.column += 1

    def feed(self, text):
        for part in re.finditer(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|\x1b.|([\s\S])", text):
            arguments, verb, character = part.groups()
            if verb:
                self.control(arguments, verb)
            elif character == "\n":
                self.row += 1
            elif character == "\r":
                self.column = 0
            elif character and character >= " ":
                self.put(character)

    def control(self, arguments, verb):
        if arguments.startswith("?"):
            return
        numbers = [int(number or 0) for number in arguments.split(";")]
        if verb == "H":
            self.row = max(numbers[0], 1) - 1
            self.column = max(numbers[1] if len(numbers) > 1 else 1, 1) - 1
        elif verb == "J":
            self.clear()
        elif verb == "K" and self.row < len(self.lines):
            del self.lines[self.row][self.column :]
        elif verb == "m":
            for number in numbers:
                colour, bold, dim = self.style
                if number == 0:
                    self.style = (None, False, False)
                elif number == 1:
                    self.style = (colour, True, dim)
                elif number == 2:
                    self.style = (colour, bold, True)
                elif number == 22:
                    self.style = (colour, False, False)
                elif number in COLOURS:
                    self.style = (COLOURS[number], bold, dim)
                elif number == 39:
                    self.style = (None, bold, dim)
            # 38;5;N: the palette's first colours are those of 30 to 37.
            if numbers[:2] == [38, 5] and len(numbers) > 2:
                self.style = (COLOURS.get(30 + numbers[2]), self.style[1], self.style[2])


def draw(lines, path):
    """One text element a line, one span a style."""
    while lines and not "".join(character for character, _ in lines[-1]).strip():
        lines.pop()
    height = 20 + 17 * len(lines)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * 8 + 24}" height="{height}" font-family="ui-monospace, monospace" font-size="13">',
        '<rect width="100%" height="100%" rx="6" fill="#21252b"/>',
        '<g fill="#d7dae0" xml:space="preserve">',
    ]
    for index, line in enumerate(lines):
        spans, last = [], None
        for character, style in line:
            if style != last:
                spans.append([style, ""])
                last = style
            spans[-1][1] += character
        if spans and not spans[-1][1].strip():
            spans.pop()
        shown = ""
        for (colour, bold, dim), text in spans:
            attributes = f' fill="{colour}"' if colour else ' fill="#828997"' if dim else ""
            attributes += ' font-weight="bold"' if bold else ""
            text = html.escape(text, quote=False)
            shown += f"<tspan{attributes}>{text}</tspan>" if attributes else text
        if shown:
            out.append(f'<text x="12" y="{22 + 17 * index}">{shown}</text>')
    out += ["</g>", "</svg>", ""]
    with open(path, "w", encoding="utf-8") as opened:
        opened.write("\n".join(out))


def run(words, folder, environment, until=None, patience=180):
    """Runs a command under a terminal of its own. `until` looks at the screen, and ends it with `q` when it is content."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(words[0], words, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen, text = Terminal(), b""
    kept = None
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                read = os.read(terminal, 65536)
            except OSError:
                break
            if not read:
                break
            text += read
            screen.feed(read.decode("utf-8", "replace"))
        if until and kept is None and until(screen):
            kept = [list(line) for line in screen.lines]
            os.write(terminal, b"q")
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(words)} ended with {status}:\n{text.decode('utf-8', 'replace')}")
    return kept or text.decode("utf-8", "replace")


def main():
    programs, target = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "xterm-256color", "TZ": "UTC"}
        for name in ("NO_COLOR", "HOLM_DATA"):
            environment.pop(name, None)
        project = os.path.join(folder, "temp-alert")
        screen = Terminal(1)

        def shown(words, inside, drop=lambda line: False):
            screen.feed(f"\x1b[32m$\x1b[0m \x1b[1m{' '.join(words)}\x1b[0m\r\n")
            text = run(words, inside, environment)
            kept = [line for line in text.split("\r\n") if not drop(line)]
            screen.feed("\r\n".join(kept))

        # What Cargo says while it compiles is not ours, and another thing each time.
        cargo = re.compile(r"^\s*(\x1b\[[\d;]*m)*\s*(Compiling|Finished|Downloading|Downloaded|Updating|Locking|Building|Adding)")
        noise = lambda line: bool(cargo.match(line)) or "\r\x1b[K" in line
        shown(["holm", "new", "temp-alert"], folder)
        subprocess.run(["holm", "build"], cwd=project, env=environment, check=True, capture_output=True)
        shown(["holm", "test"], project, noise)
        shown(["holm", "build"], project, noise)
        draw(screen.lines, os.path.join(target, "first.svg"))

        def busy(screen):
            text = "\n".join("".join(character for character, _ in line) for line in screen.lines)
            return "alerts/attic" in text and "runs:" in text and text.count("ok ") > 6

        wave = "sensors/attic/temperature#celsius=sine:27..33@8s,every=400ms"
        lines = run(["holm", "dev", "--listen", "127.0.0.1:0", "--sim", wave], project, environment, busy)
        draw(lines, os.path.join(target, "dev.svg"))


main()
