import { firstWords, groupsOf } from "./command_group.ts";
import {
  type Completion,
  completionOfArgument,
  completionOfOption,
  optionsOf,
  PLACE_SETTINGS,
} from "./completion_values.ts";
import type { CommandDefinition, OptionDefinition } from "./definition.ts";
import { secondWord } from "./parse.ts";

/** A completion script for bash 4.3 and later; it needs nothing else, bash-completion included. */
export function bashScript(commands: readonly CommandDefinition[]): string {
  const groups = groupsOf(commands);
  const beginnings = groups.map(({ name }) => name).join(" ");
  return `# Completion of lockvisor for bash. Made by: lockvisor completion bash
_lockvisor() {
  local -a words=() places=()
  local index word joins= command= pending= value_of= end= cur name offered
  local -i position=0
  # Readline cuts words at "=" and ":"; put them together again.
  for ((index = 0; index <= COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    if ((\${#words[@]} > 1)) && [[ $word == [=:]* || -n $joins ]]; then
      words[-1]+=$word
    else
      words+=("$word")
    fi
    if [[ $word == *[=:] ]]; then joins=1; else joins=; fi
  done
  cur=\${words[-1]}
  unset "words[-1]"
  for word in "\${words[@]:1}"; do
    if [[ -n $pending ]]; then
      [[ " ${PLACE_SETTINGS.map((name) => `--${name}`).join(" ")} " == *" $pending "* ]] &&
        places+=("$pending=$(_lockvisor_unquoted "$word")")
      pending=
    elif [[ -n $end ]]; then
      break
    elif [[ $word == -- ]]; then
      end=1
    elif [[ $word == --*=* ]]; then
      [[ " ${PLACE_SETTINGS.map((name) => `--${name}`).join(" ")} " == *" \${word%%=*} "* ]] &&
        places+=("\${word%%=*}=$(_lockvisor_unquoted "\${word#*=}")")
    elif [[ $word == -* ]]; then
      _lockvisor_takes_value "$command" "$word" && pending=$word
    elif [[ -z $command ]]; then
      command=$word
    elif [[ " ${beginnings} " == *" $command "* ]]; then
      command+=" $word"
    else
      position+=1
    fi
  done
  COMPREPLY=()
  if [[ -n $end ]]; then
    compopt -o filenames 2>/dev/null
    if [[ \${words[-1]} == -- ]]; then COMPREPLY=($(compgen -c -- "$cur")); else COMPREPLY=($(compgen -f -- "$cur")); fi
    return
  fi
  if [[ -z $pending && $cur == --*=* ]]; then
    pending=\${cur%%=*}
    cur=\${cur#*=}
  elif [[ -z $pending && $cur == -* ]]; then
    _lockvisor_options "$command"
    COMPREPLY=($(compgen -W "$offered" -- "$cur"))
    return
  fi
  if [[ -n $pending ]]; then name=$pending; else name=$position; fi
  case "$command $name" in
${commands.flatMap(casesOf).concat(settingCases()).join("\n")}
    ' 0') COMPREPLY=($(compgen -W '${firstWords(commands).map(({ name }) => name).join(" ")}' -- "$cur")) ;;
${
    groups.map(({ name, members }) =>
      `    '${name} 0') COMPREPLY=($(compgen -W '${members.map(secondWord).join(" ")}' -- "$cur")) ;;`
    ).join("\n")
  }
  esac
  if ((\${#COMPREPLY[@]})) && [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"\${cur%"\${cur##*:}"}"}")
  fi
}

_lockvisor_unquoted() {
  local text=$1
  [[ $text == "~/"* ]] && text=$HOME/\${text:2}
  text=\${text//[\\\\\\"\\']/}
  printf '%s' "$text"
}

_lockvisor_files() {
  local IFS=$'\\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen "$1" -- "$(_lockvisor_unquoted "$cur")"))
}

# Beside files readline itself quotes what is offered: names are wanted raw then.
_lockvisor_guests() {
  local guest format=\${1:+%s}
  local typed=\${cur//\\\\/}
  while IFS= read -r guest; do
    [[ $guest == "$typed"* ]] && COMPREPLY+=("$(printf "\${format:-%q}" "$guest")")
  done < <("\${COMP_WORDS[0]/#\\~/$HOME}" status --names "\${places[@]}" 2>/dev/null)
}

_lockvisor_takes_value() {
  case "$1" in
${
    [undefined, ...commands].map((command) =>
      `    ${quote(command?.name ?? "")}) [[ ${quote(` ${takers(command)} `)} == *" $2 "* ]] ;;`
    ).join("\n")
  }
    *) return 1 ;;
  esac
}

_lockvisor_options() {
  case "$1" in
${
    [undefined, ...commands].map((command) =>
      `    ${quote(command?.name ?? "")}) offered=${quote(flags(optionsOf(command)))} ;;`
    ).join("\n")
  }
${groups.map(({ name }) => `    ${quote(name)}) offered=--help ;;`).join("\n")}
    *) offered= ;;
  esac
}

complete -F _lockvisor lockvisor
`;
}

/** Options whose value is the next word. */
function takers(command: CommandDefinition | undefined): string {
  return flags(
    optionsOf(command).filter(({ placeholder, value }) => placeholder !== undefined && value !== "optional"),
  );
}

function flags(options: readonly OptionDefinition[]): string {
  return options.map(({ name }) => `--${name}`).join(" ");
}

function casesOf(command: CommandDefinition): string[] {
  const own = command.options.flatMap((option) =>
    caseOf(quote(`${command.name} --${option.name}`), completionOfOption(option))
  );
  const words = command.arguments.flatMap((argument, index) =>
    caseOf(
      argument.presence === "repeated"
        ? `${quote(`${command.name} `)}[0-9]*`
        : quote(`${command.name} ${index}`),
      completionOfArgument(argument),
    )
  );
  return [...own, ...words];
}

/** Settings stand before the command or after it. */
function settingCases(): string[] {
  return optionsOf(undefined).flatMap((option) =>
    caseOf(`*${quote(` --${option.name}`)}`, completionOfOption(option))
  );
}

function caseOf(pattern: string, completion: Completion | undefined): string[] {
  switch (completion?.kind) {
    case "words":
      return [`    ${pattern}) COMPREPLY=($(compgen -W ${quote(completion.words.join(" "))} -- "$cur")) ;;`];
    case "guests":
      return [`    ${pattern}) _lockvisor_guests ;;`];
    case "files":
      return [`    ${pattern}) _lockvisor_files -f ;;`];
    case "anything":
      return [`    ${pattern}) _lockvisor_files -f; _lockvisor_guests raw ;;`];
    case "directories":
      return [`    ${pattern}) _lockvisor_files -d ;;`];
    case "nothing":
    case undefined:
      return [];
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
