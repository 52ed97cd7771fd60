"""Completion in bash: one function, with all words inside."""

from collections.abc import Iterable, Mapping

from pgtoolkit.scripts.cli.completion.words import Words

FUNCTION = """\
# Completion of pgtoolkit in bash: source this file.
_pgtoolkit() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} before=$((COMP_CWORD - 1)) key=${{COMP_WORDS[1]}}
    local first=2 flag='' flags='' values='' files='' many='' takes='' i
    [[ $cur == '=' ]] && cur='' && before=$COMP_CWORD
    [[ ${{COMP_WORDS[before]}} == '=' ]] && before=$((before - 1))
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W {commands} -- "$cur"))
        return
    fi
    if [[ $key == train || $key == tune ]]; then
        if ((COMP_CWORD == 2)); then
            COMPREPLY=($(compgen -W {agents} -- "$cur"))
            return
        fi
        key="$key ${{COMP_WORDS[2]}}" first=3
    fi
    case $key in
{options}
    esac
    for ((i = before; i >= first; i--)); do
        [[ ${{COMP_WORDS[i]}} == --* ]] && flag=${{COMP_WORDS[i]}} && break
    done
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
        return
    fi
    case "$key $flag" in
{values}
    esac
    if [[ -z $takes || (-z $many && $i -ne $before) ]]; then
        values='' files=''
        case $key in
{arguments}
        esac
    fi
    COMPREPLY=($(compgen -W "$values" -- "$cur"))
    if [[ -n $files ]]; then
        local IFS=$'\\n'
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$cur"))
    fi
}}
complete -F _pgtoolkit pgtoolkit
"""


def script(words: Words) -> str:
    """The text that bash reads."""
    by_key = words.by_key.items()
    return FUNCTION.format(
        commands=quoted(" ".join([*words.commands, "--help", "--version"])),
        agents=quoted(" ".join([*words.agents, "--help"])),
        options=cases({key: f"flags={quoted(' '.join(c.options))}" for key, c in by_key}),
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


def assignments(words: Iterable[str], files: bool, many: bool) -> str:
    """The shell variables of the values of an option."""
    given = f"values={quoted(' '.join(words))} files={'yes' * files}"
    return f"{given} many={'yes' * many} takes=yes"


def cases(bodies: Mapping[str, str]) -> str:
    """The branches of a ``case``; equal ones are joined."""
    patterns: dict[str, list[str]] = {}
    for pattern, body in bodies.items():
        patterns.setdefault(body, []).append(quoted(pattern))
    return "\n".join(f"        {'|'.join(p)}) {body} ;;" for body, p in patterns.items())


def quoted(text: str) -> str:
    """The text in single quotes, as one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"
