"""``lockkit completion``: the script that makes a shell complete commands, options and lock names."""

from __future__ import annotations

import sys

import click

from lockkit.cli import output
from lockkit.cli.base import Session
from lockkit.cli.base import command as make
from lockkit.cli.completing import VARIABLE

__all__ = ["command"]

_BASH = r"""%(complete_func)s() {
    # bash splits words at ":" and "=" as well (COMP_WORDBREAKS), which lock names and URLs contain. Here only
    # blanks separate words. The part before the last such character is on the line: not inserted again.
    local IFS=$'\n'
    local rest=$COMP_LINE piece trimmed breaks prefix completion type value i
    local -a words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        trimmed=${rest#"${rest%%%%[![:space:]]*}"}
        if ((i > 0)) && [[ $trimmed == "$rest" ]]; then
            words[${#words[@]}-1]+=$piece
        else
            words+=("$piece")
        fi
        rest=${trimmed#"$piece"}
    done

    local word=${words[${#words[@]}-1]}
    breaks=${COMP_WORDBREAKS//[^:=@]/}
    if [[ -n $breaks && $word == *["$breaks"]* && $word != [\"\']* ]]; then
        prefix=${word%%"${word##*["$breaks"]}"}
    fi

    while IFS=',' read -r type value; do
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            command) COMPREPLY=($(compgen -c -- "$word")) ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain)
                # Blanks and the like are escaped, except in open quotes; the word on the line may be, or not.
                if [[ $word == [\"\']* ]]; then
                    COMPREPLY+=("$value")
                elif [[ -n $prefix && $value == "$prefix"?* ]]; then
                    COMPREPLY+=("$(printf %%q "${value#"$prefix"}")")
                else
                    value=$(printf %%q "$value")
                    COMPREPLY+=("${value#"$prefix"}")
                fi ;;
        esac
    done < <(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        %(complete_var)s=bash_complete "$1")

    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_FISH = r"""function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
        COMP_CWORD=(commandline -t) %(prog_name)s)
    for completion in $response
        # Only the first comma parts type and value: a name may have others.
        set -l parts (string split -m 1 , -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case command
                __fish_complete_command
            case plain
                echo $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


@make(
    "completion",
    examples="""
lockkit completion bash > ~/.local/share/bash-completion/completions/lockkit
lockkit completion zsh > ~/.zfunc/_lockkit  # and fpath+=(~/.zfunc)
lockkit completion fish > ~/.config/fish/completions/lockkit.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(session: Session, shell: str) -> None:
    """Print a completion script for SHELL.

    Commands, options and choices are completed; names, claims and namespaces from the store; profiles,
    settings, plugins, failures and GPUs. A store or driver that does not answer at once offers nothing.
    """
    from click.shell_completion import get_completion_class

    from lockkit.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    script = made(cli, {}, "lockkit", VARIABLE)
    # Not source(): for bash that starts the bash on this machine to look at its version.
    template = {"bash": _BASH, "fish": _FISH}.get(shell, script.source_template)
    text = template % script.source_vars()
    if session.json:
        from lockkit.cli import documents

        output.write_json(documents.Completion(shell=shell, script=text))
    else:
        sys.stdout.write(text)
