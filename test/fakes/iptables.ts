import type { FakeSystem } from "./system.ts";

/** The security table of a fake machine, behind `iptables` and `iptables-restore`. */
export interface FakeTable {
  /** Rules by chain, as `iptables -S` prints them after `-A CHAIN `. */
  readonly chains: Map<string, string[]>;
  /** Set to make every use of the table fail. */
  problem: { code: number; stderr: string } | undefined;
  /** How often something was changed, and what the table looked like in between. */
  readonly history: string[];
}

export function installFakeIptables(system: FakeSystem, version = "1.8.9"): FakeTable {
  const table: FakeTable = {
    chains: new Map([
      ["INPUT", []],
      ["FORWARD", []],
      ["OUTPUT", []],
    ]),
    problem: undefined,
    history: [],
  };
  const listed = (words: readonly string[]): string => {
    const text = words.join(" ").replace("--destination-port", "--dport");
    return text
      .replace(/(-d [\d.]+)(?= )/, "$1/32")
      .replace("-p tcp --dport", "-p tcp -m tcp --dport");
  };
  const edit = (words: readonly string[]): number => {
    const [verb, chain = "", ...rest] = words;
    const rules = table.chains.get(chain);
    if (rules === undefined) return 2;
    if (verb === "-A") rules.push(listed(rest));
    else if (verb === "-I") rules.splice(Number(rest[0]) - 1, 0, listed(rest.slice(1)));
    else if (verb === "-D") {
      const index = rules.indexOf(listed(rest));
      if (index < 0) return 1;
      rules.splice(index, 1);
    } else return 2;
    return 0;
  };
  const note = (): void => void table.history.push((table.chains.get("OUTPUT") ?? []).join(";"));

  system.programs.set("iptables", (argv) => {
    if (argv[1] === "--version") return { stdout: `iptables v${version} (nf_tables)\n` };
    if (table.problem !== undefined) return table.problem;
    const words = argv.slice(1).filter((word) => word !== "-w");
    while (words[0] === "-t") words.splice(0, 2);
    if (words[0] === "-L") return { stdout: "Chain OUTPUT (policy ACCEPT 0 packets, 0 bytes)\n" };
    if (words[0] === "-S") {
      const lines = [...table.chains].flatMap(([chain, rules]) =>
        rules.map((rule) => `-A ${chain} ${rule}`),
      );
      return {
        stdout: [...[...table.chains.keys()].map((c) => `-P ${c} ACCEPT`), ...lines, ""].join("\n"),
      };
    }
    const code = edit(words);
    note();
    return { code, stderr: code === 0 ? "" : "iptables: Bad rule" };
  });
  system.programs.set("iptables-restore", (_argv, stdin) => {
    if (table.problem !== undefined) return table.problem;
    const before = structuredClone(table.chains);
    for (const line of stdin.split("\n")) {
      if (line.startsWith("-") && edit(line.split(" ")) !== 0) {
        for (const [chain, rules] of before) table.chains.set(chain, rules);
        return { code: 1, stderr: `iptables-restore: line failed: ${line}` };
      }
    }
    note();
    return {};
  });
  return table;
}
