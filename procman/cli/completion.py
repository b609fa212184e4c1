"""`procman completion`, and the answers that its scripts ask for whenever TAB is pressed.

click finds out what is being completed, and asks `complete`. The scripts and their protocol are ours: click's
take `=` and `:` in bash for words of their own, replace `--color=al` by `always` in zsh, and know neither words without
a space behind them nor files beside other answers.

A script sets _PROCMAN_COMPLETE=SHELL_complete, COMP_LINE to the command line up to the cursor, and in bash COMP_PART to
what bash takes for the word. It gets a line `KIND,VALUE` for each answer: plain (a whole word), open (a word that goes
on, so no space follows), or file, dir, command: these complete the rest of the word behind VALUE as the shell does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    shell_complete,
    split_arg_string,
)

from procman.cli.app import SETTINGS_FILES
from procman.cli.run import COUNT, PROGRAM
from procman.config import resolve_settings, with_dotenv
from procman.formation import ALL
from procman.procfile import ProcessType, parse_procfile
from procman.settings_files import parse_settings

VARIABLE = "_PROCMAN_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
MAX_FILE_BYTES = 1_000_000  # a larger one is not read while somebody waits for TAB
MAX_HELP = 60
END = "\0"  # marks the cursor, so that the last word is the one before it, though it may be empty


@click.command(
    short_help="Print the script that completes with TAB.",
    epilog="""\b
Once, and then in each new shell:
  echo 'eval "$(procman completion bash)"' >> ~/.bashrc
  echo 'eval "$(procman completion zsh)"' >> ~/.zshrc
  procman completion fish > ~/.config/fish/completions/procman.fish

\b
bash must be 4.4 or newer; in ~/.zshrc the line stands behind `compinit`, as in:
  autoload -Uz compinit && compinit

\b
Examples:
  procman completion            the script for your login shell ($SHELL)
  procman completion zsh        the one for zsh
  eval "$(procman completion bash)"
                                only in the bash that you are in
""",
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def command(context: click.Context, shell: str | None) -> None:
    """Print the script that lets your shell complete procman's command line with TAB.

    It completes commands, options, their values, and the process types of the Procfile that -f or -d name.
    """
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SHELLS:
        raise click.UsageError("$SHELL names none of bash, zsh, fish: write one of them behind the command.", context)
    click.echo(_SCRIPTS[shell](context.find_root().command, {}, "procman", VARIABLE).source(), nl=False)


def answer(cli: click.Command) -> int:
    """Answer a script's question; return the exit code. Nothing that goes wrong may write to the terminal."""
    try:
        return shell_complete(cli, {}, "procman", VARIABLE, os.environ[VARIABLE])
    except (Exception, KeyboardInterrupt):
        if os.environ.get("PROCMAN_DEBUG"):
            raise
        return 1


# --- what may stand there --------------------------------------------------------------------------------------------

Items: TypeAlias = "Iterator[CompletionItem[str]]"  # quoted: older clicks have no generic CompletionItem


def complete(kind: str, context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return what may stand at a place of that kind: the key of a setting, or one of `_KINDS`."""
    items = _KINDS.get(kind)
    return list(items(context, param, incomplete)) if items else []


def _words(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Words like `web worker=2`: each process type that is not there yet, and `TYPE=`."""
    given = _names(context.params.get(param.name or "") or ())
    for entry in _types(context):
        if entry.name not in given:
            yield from _matching([_plain(entry), _open(f"{entry.name}=")], incomplete)
    if incomplete and ALL not in given:
        yield from _matching([_open(f"{ALL}=")], incomplete)


def _counts(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """A list like `web=2,worker=1`."""
    listed, _ = _split(incomplete)
    given = _names(listed.split(","))
    names = [entry.name for entry in _types(context)]
    for name in [*names, ALL] if names else []:
        if name not in given:
            yield from _matching([_open(f"{listed}{name}=")], incomplete)


def _type_counts(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Words like `web=2`."""
    yield from (item for item in _words(context, param, incomplete) if item.type == "open" and item.value != f"{ALL}=")


def _list(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """A list like `web,worker`."""
    listed, _ = _split(incomplete)
    left = [entry for entry in _types(context) if entry.name not in listed.split(",")]
    for entry in left:
        word = f"{listed}{entry.name}"
        yield from _matching([_open(word, entry.command) if len(left) > 1 else _plain(entry, word)], incomplete)


def _list_or_all(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """A list like `web,worker`, or `all`."""
    yield from _list(context, param, incomplete)
    yield from _matching([CompletionItem(ALL, help="every process type")], incomplete)


def _instance(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """A word like `web` or `web.2`."""
    for entry in _types(context):
        yield from _matching([_plain(entry), _open(f"{entry.name}.")], incomplete)


def _one_off(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """The words of `procman run`: a process type, a count or a program, and then what it takes."""
    words: Sequence[str] = context.params.get(param.name or "") or ()
    if not words:
        yield from _words(context, param, incomplete)
    if not words or words == (PROGRAM,):
        if re.search("[/~$]", incomplete):
            yield CompletionItem(incomplete, type="file")
        elif incomplete:  # without a letter they would be thousands
            yield CompletionItem(incomplete, type="command")
    elif COUNT.fullmatch(words[0]):
        yield from (item for item in _words(context, param, incomplete) if item.type == "open")
    else:
        yield CompletionItem(incomplete, type="file")


def _file(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    yield CompletionItem(incomplete, type="file")


def _dir(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    yield CompletionItem(incomplete, type="dir")


def _files(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """A list like `a.env,b.env`."""
    yield CompletionItem(_split(incomplete)[1], type="file")


def _sink(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    if incomplete.startswith("jsonl:"):
        yield CompletionItem(incomplete.removeprefix("jsonl:"), type="file")
    else:
        yield from _matching([_open("jsonl:", "a file, or fd= and a number")], incomplete)


_KINDS: dict[str, Callable[[click.Context, click.Parameter, str], Items]] = {
    "names": _words,
    "formation": _counts,
    "scale": _type_counts,
    "can_die": _list,
    "quiet": _list,
    "restart": _list_or_all,
    "instance": _instance,
    "one_off": _one_off,
    "file": _file,
    "dir": _dir,
    "env": _files,
    "sink": _sink,
}


def _types(context: click.Context) -> tuple[ProcessType, ...]:
    """Return the process types that can be read: none if there is no Procfile, and never a complaint."""
    path = _given(context, "procfile") or _procfile_of(_given(context, "root"))
    return parse_procfile(_read(path), path).types


def _procfile_of(root: str) -> str:
    """Return what the settings name; not those of `.env`, which may be a pipe that can be read only once."""
    texts = {name: _read(os.path.join(root, name)) for name in SETTINGS_FILES}
    files = [parse_settings(text, name) for name, text in texts.items() if text]
    settings = with_dotenv(resolve_settings(root, caller=os.environ, files=files), {}, os.environ)
    return os.path.join(root, settings.procfile)


def _read(path: str) -> bytes:
    """Return a file's bytes, or none. A terminal or a pipe would block, or be empty when it is needed."""
    try:
        if os.path.isfile(path) and os.path.getsize(path) <= MAX_FILE_BYTES:
            with open(path, "rb") as file:
                return file.read()
    except (OSError, ValueError):  # ValueError: NUL in the path
        pass
    return b""


def _given(context: click.Context | None, option: str) -> str:
    """Return a path given behind the command, else before it; as the shell would expand it."""
    while context is not None:
        if path := context.params.get(option):
            return os.path.expandvars(os.path.expanduser(str(path)))
        context = context.parent
    return ""


def _names(words: Iterable[str]) -> set[str]:
    return {word.partition("=")[0] for word in words}


def _split(words: str) -> tuple[str, str]:
    """Return what stands before the last word of a list, with its comma, and that word."""
    listed, comma, word = words.rpartition(",")
    return listed + comma, word


def _plain(entry: ProcessType, word: str = "") -> CompletionItem[str]:
    return CompletionItem(word or entry.name, help=entry.command)


def _open(word: str, text: str = "") -> CompletionItem[str]:
    return CompletionItem(word, type="open", help=text)


def _matching(items: Iterable[CompletionItem[str]], incomplete: str) -> Iterator[CompletionItem[str]]:
    """Return those that go on from what is there. One that is there and is whole gets its space."""
    return (
        item for item in items if item.value.startswith(incomplete) and (item.type, item.value) != ("open", incomplete)
    )


# --- the shells ------------------------------------------------------------------------------------------------------


class _Script(ShellComplete):
    """What the three have in common."""

    func_name = "_procman"  # must be the name of the file from which zsh loads it

    _word = ""  # the whole word before the cursor
    _part = ""  # what the shell is going to replace of it: its end

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_LINE"] + END)
        self._word = self._part = words[-1].removesuffix(END)
        return self.without_assignments(words[:-1])[1:], self._word

    def without_assignments(self, words: list[str]) -> list[str]:
        return words

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Ask click, and make every value a whole word again: of `--color=al` it completes only `al`."""
        option = incomplete[: incomplete.find("=") + 1] if incomplete.startswith("-") else ""
        items = super().get_completions(args, incomplete)
        for item in items:
            if item.type in ("plain", "open"):
                item.value = option + item.value
            else:  # these have the text to be completed as their value; the scripts want what stands before it
                item.value = self._word.removesuffix(item.value)
        return items

    def format_completion(self, item: CompletionItem[str]) -> str:
        start = len(self._word) - len(self._part)
        return f"{item.type},{item.value[start:]}"


class Bash(_Script):
    """bash 4.4 or newer, which has `complete -o nosort`."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = r"""# procman completion for bash
%(complete_func)s() {
    local program line value
    program=$(type -P -- "${1/#\~\//$HOME/}") || program=%(prog_name)s
    COMPREPLY=()
    while IFS= read -r line; do
        value=${line#*,}
        case ${line%%%%,*} in
            plain) COMPREPLY+=("$value") ;;
            open)
                COMPREPLY+=("$value")
                compopt -o nospace
                ;;
            command) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -c -- "$2" | sort -u) ;;
            dir) compopt -o dirnames ;;
            file)
                compopt -o bashdefault -o default
                [[ $value ]] || continue
                compopt -o filenames
                while IFS= read -r line; do
                    [[ -d $line ]] && line+=/ && compopt -o nospace
                    COMPREPLY+=("$value$line")
                done < <(compgen -f -- "${2#"$value"}")
                ;;
        esac
    done < <(
        COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_PART=$2 %(complete_var)s=bash_complete \
            "$program" </dev/null 2>/dev/null
    )
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        part = split_arg_string(os.environ.get("COMP_PART", self._word) + END)[-1].removesuffix(END)
        if self._word.endswith(part):
            self._part = part
        return args, incomplete


class Zsh(_Script):
    """zsh, for `eval` in ~/.zshrc and as a file `_procman` in $fpath."""

    name: ClassVar[str] = "zsh"
    source_template: ClassVar[str] = r"""#compdef %(prog_name)s
# procman completion for zsh
%(complete_func)s() {
    local program=${${(Q)words[1]}/#\~\//$HOME/} line value ret=1
    local -a plain open
    whence -p -- "$program" >/dev/null || program=%(prog_name)s
    for line in "${(@f)$(
        COMP_LINE="${(j: :)words[1,CURRENT-1]} $QIPREFIX$IPREFIX$PREFIX" %(complete_var)s=zsh_complete \
            "$program" </dev/null 2>/dev/null
    )}"; do
        value=${line#*,}
        case ${line%%%%,*} in
            plain) plain+=("$value") ;;
            open) open+=("$value") ;;
            command) _command_names -e && ret=0 ;;
            dir | file)
                compset -p ${#value}
                if [[ $line == dir,* ]]; then _files -/; else _files; fi && ret=0
                ;;
        esac
    done
    (( $#plain )) && _describe -V %(prog_name)s plain && ret=0
    (( $#open )) && _describe -V %(prog_name)s open -S '' && ret=0
    return ret
}
if [[ $funcstack[1] == %(complete_func)s ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

    def format_completion(self, item: CompletionItem[str]) -> str:
        if item.type not in ("plain", "open"):
            return super().format_completion(item)
        value = item.value.replace("\\", r"\\").replace(":", r"\:")
        return f"{item.type},{value}" + (f":{_one_line(item.help)}" if item.help else "")


class Fish(_Script):
    """fish, which by itself puts no space behind `=`."""

    name: ClassVar[str] = "fish"
    source_template: ClassVar[str] = r"""# procman completion for fish
function %(complete_func)s
    set -l word (commandline -ct)
    set -l line (commandline -cp | string collect)
    set -l program (commandline -opc | string match -v -r '^\w+=' | string replace -r '^~/' "$HOME/")[1]
    command -q -- $program; or set program %(prog_name)s
    for answer in (COMP_LINE=$line %(complete_var)s=fish_complete $program </dev/null 2>/dev/null)
        set -l found (string split -m 1 , -- $answer)
        set -l rest (string sub -s (math 1 + (string length -- "$found[2]")) -- "$word")
        switch $found[1]
            case plain open
                echo $found[2]
            case command
                complete -C $rest
            case dir
                printf '%%s\n' $found[2](__fish_complete_directories $rest)
            case file
                printf '%%s\n' $found[2](complete -C "'' $rest")
        end
    end
end
complete -c %(prog_name)s -f -a '(%(complete_func)s)'
"""

    def without_assignments(self, words: list[str]) -> list[str]:
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        return words

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Let a comma follow where one may: fish puts no space behind an answer that begins another one."""
        line = super().format_completion(item)
        help_text = f"\t{_one_line(item.help)}" if item.help else ""
        if item.type == "open" and item.value[-1].isalnum():
            return f"{line}{help_text}\n{line},"
        return line + help_text


def _one_line(text: str) -> str:
    """Return a description: one short line, with nothing in it that a terminal would obey."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= MAX_HELP else line[: MAX_HELP - 1] + "…"


_SCRIPTS: dict[str, Any] = {script.name: add_completion_class(script) for script in (Bash, Zsh, Fish)}
