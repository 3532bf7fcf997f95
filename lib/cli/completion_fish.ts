import { firstWords, groupsOf } from "./command_group.ts";
import {
  type Completion,
  completionOfArgument,
  completionOfOption,
  PLACE_SETTINGS,
} from "./completion_values.ts";
import { type CommandDefinition, type OptionDefinition, SETTING_OPTIONS } from "./definition.ts";
import { secondWord } from "./parse.ts";

/** A completion script for fish. */
export function fishScript(commands: readonly CommandDefinition[]): string {
  const groups = groupsOf(commands);
  const valued = SETTING_OPTIONS.map(({ name }) => `--${name}`).join(" ");
  return `# Completion of lockvisor for fish. Made by: lockvisor completion fish
function __lockvisor_command
    set -l skip no
    set -l first
    for word in (commandline -opc)[2..-1]
        if test $skip = yes
            set skip no
        else if contains -- $word ${valued}
            set skip yes
        else if not string match -q -- '-*' $word
            if test -z "$first"; and contains -- $word ${groups.map(({ name }) => name).join(" ")}
                set first $word
            else
                echo $first $word
                return
            end
        end
    end
    test -n "$first"; and echo $first
end

function __lockvisor_is
    set -l words (commandline -opc)
    not contains -- -- $words; and test "$(__lockvisor_command)" = "$argv[1]"
end

function __lockvisor_guests
    set -l words (commandline -opc)
    set -l places
    for index in (seq 2 (count $words))
        if contains -- $words[$index] ${
    PLACE_SETTINGS.map((name) => `--${name}`).join(" ")
  }; and set -q words[(math $index + 1)]
            set -a places $words[$index]=$words[(math $index + 1)]
        else if string match -qr -- '^--(${PLACE_SETTINGS.join("|")})=' $words[$index]
            set -a places $words[$index]
        end
    end
    $words[1] status --names $places 2>/dev/null
end

complete -c lockvisor -f
complete -c lockvisor -n '__lockvisor_is ""' -l version -d 'print the version'
complete -c lockvisor -s h -l help -d 'show help'
${SETTING_OPTIONS.map((option) => optionLine("", option)).join("\n")}
${firstWords(commands).map(({ name, summary }) => wordLine("", name, summary)).join("\n")}
${
    groups.flatMap(({ name, members }) =>
      members.map((member) => wordLine(name, secondWord(member), member.summary))
    ).join("\n")
  }
${commands.flatMap(commandLines).join("\n")}
`;
}

/** A word of a command's name, after what stands before it. */
function wordLine(before: string, word: string, summary: string): string {
  return `complete -c lockvisor -n '__lockvisor_is "${before}"' -a ${word} -d ${quote(summary)}`;
}

function commandLines(command: CommandDefinition): string[] {
  const within = `-n ${quote(`__lockvisor_is "${command.name}"`)} `;
  return [
    ...command.options.map((option) => optionLine(within, option)),
    ...command.arguments.flatMap((argument) => {
      const words = offer(completionOfArgument(argument));
      return words === "" ? [] : [`complete -c lockvisor ${within}${words}`];
    }),
    ...command.userCommand === undefined ? [] : [
      `complete -c lockvisor -n 'contains -- -- (commandline -opc); and test "$(__lockvisor_command)" = "${command.name}"' -xa '(__fish_complete_subcommand --fcs-skip=(contains -i -- -- (commandline -opc)))'`,
    ],
  ];
}

function optionLine(condition: string, option: OptionDefinition): string {
  const completion = completionOfOption(option);
  const value = completion === undefined || option.value === "optional"
    ? ""
    : ` -r ${offer(completion)}`.trimEnd();
  return `complete -c lockvisor ${condition}-l ${option.name}${value} -d ${quote(option.summary)}`;
}

/** What stands in place of a value; -f is in force, so files are offered only where they are asked for. */
function offer(completion: Completion): string {
  switch (completion.kind) {
    case "words":
      return `-f -a ${quote(completion.words.join(" "))}`;
    case "guests":
      return `-f -a '(__lockvisor_guests)'`;
    case "files":
      return "-F";
    case "anything":
      return `-F -a '(__lockvisor_guests)'`;
    case "directories":
      return `-f -a '(__fish_complete_directories)'`;
    case "nothing":
      return "";
  }
}

function quote(text: string): string {
  return `'${text.replaceAll(/[\\']/g, "\\$&")}'`;
}
