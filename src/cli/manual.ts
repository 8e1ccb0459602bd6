import { VERSION } from "../base/identity.ts";
import { type ConfigKey, configKeys, definitionOf } from "../config/table.ts";
import { FLAGS, OPERATORS, VERBS } from "./verbs.ts";

/** The manual page waagent(8) in man(7) source, made from the tables of commands and keys. Pure. */
export function manualPage(): string {
  const verbs = Object.values(VERBS);
  return [
    `.TH WAAGENT 8 "" "waagent ${VERSION}" "System administration"\n`,
    ".SH NAME\nwaagent \\- Azure Linux VM agent\n",
    ".SH SYNOPSIS\n.B waagent\n[flags] command\n.br\n.B waagent status\n|\n.B doctor\n|\n.B explain\nHANDLER |\n.B egress\n.br\n.B waagent config\ncheck|show|default|reference\n.br\n.B waagent policy\ncheck\n",
    ".SH DESCRIPTION\n",
    "Provisions a Linux virtual machine on Azure, runs its extensions and reports their state and its own to the\n",
    "platform. It takes the place of the Python agent (WALinuxAgent) and reads the same configuration, state and media.\n",
    ".PP\n",
    "Commands and flags may begin with any number of dashes or slashes, or none; the last command counts.\n",
    "An argument that is not known prints the usage text.\n",
    ".SH COMMANDS\n",
    ...verbs.map(item),
    ".SH FLAGS\n",
    ...FLAGS.map(item),
    ".SH COMMANDS FOR OPERATORS\n",
    ...OPERATORS.map(item),
    ".SH CONFIGURATION\n",
    "The file holds one Key=value on a line. A # begins a comment, the last of equal keys counts, ",
    "None stands for no value. A change needs a restart of the service.\n",
    ...configKeys()
      .filter((key) => definitionOf(key).kind !== "debug")
      .toSorted()
      .map(keyItem),
    ".SH EXIT STATUS\n",
    item({ usage: "0", doc: "Done, help or version was printed, or the daemon already runs." }),
    item({ usage: "1", doc: "The command failed; the reason is in the log or on standard error." }),
    item({
      usage: "2",
      doc: "status, explain and doctor: something has failed, or keeps the agent from its work.",
    }),
    item({ usage: "3", doc: "status: no agent runs." }),
    item({ usage: "64", doc: "The arguments of an operator command make no sense." }),
    item({ usage: "70", doc: "This version does not have the command." }),
    ".SH FILES\n",
    item({ usage: "/etc/waagent.conf", doc: "Configuration." }),
    item({
      usage: "/etc/waagent/logs.manifest",
      doc: "More files for the log collector, one a line: copy,/var/log/app/*.log.",
    }),
    item({
      usage: "/var/lib/waagent",
      doc: "State: goal state, certificates, extensions. Mode 0700.",
    }),
    item({ usage: "/var/log/waagent.log", doc: "The log." }),
    item({ usage: "/var/log/azure", doc: "Logs of extensions." }),
    item({ usage: "/var/run/waagent.pid", doc: "Process id of the running agent." }),
    ".SH SEE ALSO\n.BR systemd (1),\n.BR cloud-init (1)\n",
  ].join("");
}

function item({ usage, doc }: { readonly usage: string; readonly doc: string }): string {
  return `.TP\n.B ${escape(usage)}\n${escape(doc)}\n`;
}

function keyItem(key: ConfigKey): string {
  const { default: value, doc } = definitionOf(key);
  const shown =
    value === undefined ? "unset" : typeof value === "boolean" ? (value ? "y" : "n") : value;
  return item({ usage: key, doc: `${doc} Default: ${shown}.` });
}

/** Text as roff shows it: no minus as hyphen, no request at the start of a line. */
function escape(text: string): string {
  const plain = text.replaceAll("\\", "\\e").replaceAll("-", "\\-");
  return /^['.]/.test(plain) ? `\\&${plain}` : plain;
}
