import { type CommandGroup, firstWords, groupsOf } from "./command_group.ts";
import { type Completion, completionOfArgument, completionOfOption, optionsOf } from "./completion_values.ts";
import type { CommandDefinition, OptionDefinition } from "./definition.ts";
import { secondWord } from "./parse.ts";

/** A completion script for zsh: a file named _lockvisor in a folder of $fpath, or read with `source`. */
export function zshScript(commands: readonly CommandDefinition[]): string {
  const whole = commands.filter(({ name }) => !name.includes(" "));
  return `#compdef lockvisor
# Completion of lockvisor for zsh. Made by: lockvisor completion zsh
_lockvisor_guests() {
  local -a names places
  local index
  for ((index = 2; index < $#lockvisor_line; index++)); do
    case $lockvisor_line[index] in
      --config | --lockspace | --runtime-dir | --host-id)
        places+=("$lockvisor_line[index]=\${(Q)~lockvisor_line[index + 1]}") ;;
      --config=* | --lockspace=* | --runtime-dir=* | --host-id=*) places+=("\${(Q)lockvisor_line[index]}") ;;
    esac
  done
  names=("\${(@f)$(_call_program guests \${(q)lockvisor_line[1]} status --names \${(q)places} 2>/dev/null)}")
  names=(\${names:#})
  compadd -a names
}

_lockvisor_anything() {
  _alternative 'guests:guest:_lockvisor_guests' 'files:file:_files'
}

_lockvisor() {
  local curcontext="$curcontext" state line
  local -a commands settings lockvisor_line
  lockvisor_line=("\${words[@]}")
  commands=(
${firstWords(commands).map(described).join("\n")}
  )
  settings=(
${
    optionsOf(undefined).filter(({ name }) => name !== "version").map((option) => `    ${optionSpec(option)}`)
      .join("\n")
  }
  )
  _arguments -C $settings '--version[print the version]' '1: :->command' '*:: :->words' && return
  case $state in
    command) _describe -t commands command commands ;;
    words)
      case $words[1] in
${[...whole.map((command) => commandCase(command)), ...groupsOf(commands).map(groupCase)].join("\n")}
      esac
      ;;
  esac
}

if [[ $funcstack[1] == _lockvisor ]]; then _lockvisor "$@"; else compdef _lockvisor lockvisor; fi
`;
}

function described({ name, summary }: { name: string; summary: string }): string {
  return `    ${quote(`${name}:${summary}`)}`;
}

/** A first word is followed by a second one, and that by what its command takes. */
function groupCase({ name, members }: CommandGroup): string {
  return `        ${name})
  commands=(
${members.map((member) => described({ name: secondWord(member), summary: member.summary })).join("\n")}
  )
  _arguments -C '--help[show help]' '1: :->command' '*:: :->words' && return
  case $state in
    command) _describe -t commands '${name} command' commands ;;
    words)
      case $words[1] in
${members.map((member) => commandCase(member, secondWord(member))).join("\n")}
      esac
      ;;
  esac
  ;;`;
}

function commandCase(command: CommandDefinition, word: string = command.name): string {
  const specs = [
    "$settings",
    ...command.options.map(optionSpec),
    ...command.arguments.map((argument, index) => {
      const place = argument.presence === "repeated" ? "*" : `${index + 1}`;
      const colon = argument.presence === "optional" ? "::" : ":";
      return quote(`${place}${colon}${escape(argument.name)}:${action(completionOfArgument(argument))}`);
    }),
    // What follows -- is a command line of its own.
    ...command.userCommand === undefined ? [] : [quote("*::: :_normal")],
  ];
  return `        ${word}) _arguments ${specs.join(" ")} ;;`;
}

function optionSpec(option: OptionDefinition): string {
  const completion = completionOfOption(option);
  const repeated = option.occurs === "repeatedly" ? "*" : "";
  const summary = `[${escape(option.summary)}]`;
  if (completion === undefined) return quote(`${repeated}--${option.name}${summary}`);
  const [sign, colon] = option.value === "optional" ? ["=-", "::"] : ["=", ":"];
  const placeholder = escape(option.placeholder!);
  return quote(`${repeated}--${option.name}${sign}${summary}${colon}${placeholder}:${action(completion)}`);
}

function action(completion: Completion): string {
  switch (completion.kind) {
    case "words":
      return `(${completion.words.join(" ")})`;
    case "guests":
      return "_lockvisor_guests";
    case "files":
      return "_files";
    case "anything":
      return "_lockvisor_anything";
    case "directories":
      return "_files -/";
    case "nothing":
      return " ";
  }
}

/** In a specification of _arguments these have a meaning of their own. */
function escape(text: string): string {
  return text.replaceAll(/[\\:[\]]/g, "\\$&");
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
