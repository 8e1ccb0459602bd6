import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import {
  editCommandLine,
  editGrubDefault,
  editLoaderEntry,
  editMenuLst,
} from "../../../src/machine/boot-options.ts";
import {
  parseDhclientLeases,
  parseNetworkdLease,
  parseNmcli,
  parseRawLease,
} from "../../../src/machine/dhcp-leases.ts";
import { parseRules, planIptables, planRemoval } from "../../../src/machine/firewall-iptables.ts";
import { judgeTable } from "../../../src/machine/firewall-nft.ts";
import { ownRules } from "../../../src/machine/firewall-rules.ts";
import { parseMountInfo } from "../../../src/machine/mounts.ts";
import { parseExport } from "../../../src/machine/resource-disk-view.ts";

/** Documents that others write, mutated: whatever they say, the outcome is a value or an AgentError. */

const ROUNDS = 1500;
const SPICE = [
  ..."\0\n\r\t \"'\\{}[]:;=,.#$`-!/\u{1F600}\uFFFD",
  ...[
    "--comment",
    "-j ACCEPT",
    "-A OUTPUT",
    "lease {",
    "}",
    "0".repeat(300),
    "\u0000\u0000",
    "\\012",
  ],
];

/** A sequence that is the same in every run. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function* mutations(samples: readonly string[]): Generator<string> {
  const random = generator(samples.join("").length);
  const pick = <Item>(items: readonly Item[]): Item => items[random(items.length)]!;
  yield* samples;
  for (let round = 0; round < ROUNDS; round += 1) {
    let text = pick(samples);
    for (let change = random(4); change >= 0; change -= 1) {
      const at = random(text.length + 1);
      const end = Math.min(text.length, at + random(12));
      const piece = [
        pick(SPICE),
        "",
        text.slice(at, end).repeat(2),
        pick(samples).slice(random(40)),
      ];
      text = text.slice(0, at) + pick(piece) + text.slice(end);
    }
    yield text;
  }
}

/** The value, or undefined when the document was refused in the agent's own words. */
function judged<Value>(parse: () => Value): Value | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    expect(error.message.length).toBeGreaterThan(0);
    return undefined;
  }
}

test("leases: an endpoint is a whole IPv4 address, or there is none", () => {
  const samples = [
    'lease {\n  interface "eth0";\n  option unknown-245 a8:3f:81:10;\n  expire 4 2030/01/31 23:59:59;\n}\n',
    "lease {\n  option option-245 168.63.129.16;\n  expire never;\n}\nlease { expire epoch 1900000000; }\n",
    "ADDRESS=10.0.0.4\nOPTION_245=a83f8110\nOPTION_249=18a9\n",
    "DHCP4.OPTION[3]:   unknown_245 = a8:3f:81:10\nDHCP4.OPTION[4]: private_245 = a83f8110\n",
  ];
  const packet = (text: string): Uint8Array => {
    const bytes = new Uint8Array(320);
    bytes.set([99, 130, 83, 99, 245, 4, 168, 63, 129, 16, 51, 4, 0, 1, 0, 0, 255], 236);
    bytes.set(Buffer.from(text).subarray(0, 60), 236 + (text.length % 20));
    return bytes;
  };
  for (const text of mutations(samples)) {
    const endpoints = [
      judged(() => parseDhclientLeases(text, Date.UTC(2026, 0))),
      judged(() => parseNetworkdLease(text)),
      judged(() => parseNmcli(text)),
      judged(() => parseRawLease(packet(text), { modifiedMs: 0, now: 1 })),
    ];
    for (const endpoint of endpoints)
      if (endpoint !== undefined) {
        expect(endpoint).toMatch(/^(?:\d{1,3}\.){3}\d{1,3}$/);
        expect(endpoint.split(".").every((part) => Number(part) <= 255)).toBe(true);
      }
  }
});

test("firewall listings: only rules of ours are ever taken away, in words of our own", () => {
  const rules = { address: "168.63.129.16", userId: 0, coverForwarded: false };
  const spec = ownRules(rules, "OUTPUT").map((words) => words.join(" "));
  const samples = [
    `-P OUTPUT ACCEPT\n${spec.map((words) => `-A OUTPUT ${words}`).join("\n")}\n`,
    '-P INPUT ACCEPT\n-N X\n-A OUTPUT -m comment --comment "a \\"b\\" c" -j X\n-A OUTPUT -d 168.63.129.16/32 -p tcp -m tcp --dport 53 -j ACCEPT\n',
    "-A OUTPUT ! -d 10.0.0.0/8 -g Y\n-A FORWARD -i eth0 -j DROP\n",
  ];
  const known = new Set(
    ["OUTPUT", "FORWARD"].flatMap((chain) =>
      ownRules(rules, chain as "OUTPUT").map((words) => words.join(" ")),
    ),
  );
  for (const text of mutations(samples)) {
    const listed = judged(() => parseRules(text)) ?? [];
    const plan = planIptables(listed, rules);
    for (const [action, , ...words] of [...plan.edits, ...planRemoval(listed, rules)]) {
      const rule = action === "-I" ? words.slice(1) : words;
      expect(known.has(rule.join(" ")), rule.join(" ")).toBe(true);
    }
  }
  const json = JSON.stringify({
    nftables: [
      { metainfo: {} },
      { chain: { hook: "output", policy: "accept" } },
      {
        rule: { expr: [{ match: { op: "==", left: { payload: {} }, right: 1 } }, { drop: null }] },
      },
    ],
  });
  for (const text of mutations([json])) judged(() => judgeTable(text, "output", rules));
});

test("boot loader files: options are only ever added, once, and every other line stays", () => {
  const options = ["console=tty1", "console=ttyS0,115200n8"];
  const samples = [
    "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=\"quiet\"\nGRUB_CMDLINE_LINUX='a b'\n",
    "title x\n\troot (hd0,0)\n\tkernel /vmlinuz root=/dev/sda1 quiet\n\tinitrd /i\n",
    "title x\nlinux /vmlinuz\noptions root=UUID=1 ro $kernelopts\n",
    "root=UUID=1 ro\n",
  ];
  const edits = [
    (text: string) => editGrubDefault(text, "GRUB_CMDLINE_LINUX", options),
    (text: string) => editMenuLst(text, options),
    (text: string) => editLoaderEntry(text, options),
  ];
  for (const text of mutations(samples))
    for (const edit of edits) {
      const once = judged(() => edit(text));
      if (once === undefined) continue;
      expect(edit(once), JSON.stringify(text)).toBe(once);
      const before = text.split("\n");
      const after = once.split("\n");
      expect(after).toHaveLength(before.length);
      for (const [index, line] of after.entries())
        if (line !== before[index]) {
          // Without what was added it is the old line, but for blanks and quotes.
          const bare = (words: string): string => words.replace(/["'\s]/g, "");
          const rest = options.reduce((left, option) => left.replace(option, ""), line);
          expect(bare(rest), JSON.stringify(text)).toBe(bare(before[index] ?? ""));
        }
    }
  for (const text of mutations(["root=UUID=1 ro quiet\n"])) {
    const once = editCommandLine(text, options);
    expect(editCommandLine(once, options)).toBe(once);
  }
});

test("tables of the kernel and of blkid: fields, whatever the names in them are", () => {
  const samples = [
    "36 25 8:17 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/sdb1 rw\n",
    "37 25 0:30 /sub / rw - btrfs /dev/sdc rw,subvol=/sub\n38 1 9:127 / / rw - xfs /dev/md127 rw\n",
  ];
  for (const text of mutations(samples))
    for (const mount of judged(() => parseMountInfo(text)) ?? []) {
      expect(typeof mount.mountPoint).toBe("string");
      expect(typeof mount.fileSystem).toBe("string");
    }
  for (const text of mutations(["DEVNAME=/dev/sdb\nTYPE=ext4\nLABEL=a\\ b\nUSAGE=filesystem\n"]))
    for (const [key, value] of parseExport(text)) {
      expect(key).not.toBe("");
      expect(value).not.toContain("\n");
    }
});
