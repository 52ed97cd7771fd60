"""Completion in zsh: one function, with all words and what they mean inside."""

from collections.abc import Mapping

from pgtoolkit.scripts.cli.completion.bash import assignments, cases, quoted
from pgtoolkit.scripts.cli.completion.words import Words

FUNCTION = """\
#compdef pgtoolkit
# Completion of pgtoolkit in zsh: a file _pgtoolkit in a folder of fpath, or sourced.
_pgtoolkit() {{
    local key=$words[2] first=3 flag='' values='' files='' many='' takes='' i
    local -a rows
    if ((CURRENT == 2)); then
        rows=({commands})
        _describe command rows
        return
    fi
    if [[ $key == train || $key == tune ]]; then
        if ((CURRENT == 3)); then
            rows=({agents})
            _describe agent rows
            return
        fi
        key="$key $words[3]" first=4
    fi
    if [[ $PREFIX == -* && $PREFIX != *=* ]]; then
        case $key in
{options}
        esac
        _describe -o option rows
        return
    fi
    for ((i = CURRENT - 1; i >= first; i--)); do
        [[ $words[i] == --* ]] && flag=$words[i] && break
    done
    if [[ $PREFIX == --*=* ]]; then
        flag=${{PREFIX%%=*}} i=$((CURRENT - 1))
        compset -P '*='
    fi
    case "$key $flag" in
{values}
    esac
    if [[ -z $takes || (-z $many && $i -ne $((CURRENT - 1))) ]]; then
        values='' files=''
        case $key in
{arguments}
        esac
    fi
    compadd -- ${{=values}}
    [[ -n $files ]] && _files
    return 0
}}
if [[ $funcstack[1] == _pgtoolkit ]]; then
    _pgtoolkit "$@"
else
    compdef _pgtoolkit pgtoolkit
fi
"""


def script(words: Words) -> str:
    """The text that zsh reads."""
    by_key = words.by_key.items()
    return FUNCTION.format(
        commands=rows(words.commands),
        agents=rows(words.agents),
        options=cases({key: f"rows=({rows(command.options)})" for key, command in by_key}),
        values=cases(
            {
                f"{key} {flag}": assignments(values.words, values.files, values.many)
                for key, command in by_key
                for flag, values in command.values.items()
            }
        ),
        arguments=cases(
            {key: assignments(c.arguments.words, c.arguments.files, False) for key, c in by_key}
        ),
    )


def rows(notes: Mapping[str, str]) -> str:
    """Words with their first sentences, as ``_describe`` takes them."""
    return " ".join(
        quoted(f"{name.replace(':', chr(92) + ':')}:{first_sentence(note)}")
        for name, note in notes.items()
    )


def first_sentence(text: str) -> str:
    """The text up to its first full stop."""
    return text.partition(". ")[0].removesuffix(".")
