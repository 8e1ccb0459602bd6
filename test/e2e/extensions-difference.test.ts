import { expect } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import type { Fabric } from "../fabric/fabric.ts";
import type { PackageDescription } from "../fabric/package.ts";
import type { ExtensionDescription, GoalStateDescription, Scenario } from "../fabric/scenario.ts";
import { binary } from "../support/binary.ts";
import { testUnless } from "../support/skip.ts";
import { differences, isReviewed, REVIEWED } from "./extensions-reviewed.ts";
import { AGENT_CONF } from "./guest.ts";
import { startHost } from "./host.ts";
import { installReference, referenceMissing, startReference } from "./reference.ts";
import { canSandbox, createSandbox, type Sandbox } from "./sandbox.ts";

const able = canSandbox();
const differenceTest = testUnless(able.ok ? referenceMissing() : able.reason);

/** Every command leaves what it was given in a numbered folder: arguments, environment, files, modes, settings. */
const PROBE = `d=/var/lib/probe/$name/$(printf %03d $(ls /var/lib/probe/$name 2>/dev/null | wc -l))-$version-$command
mkdir -p "$d"
env | sort >"$d/environment"
{ pwd; umask; echo "$#"; } >"$d/process"
(cd "$base" && find . -printf '%P %m %y\\n' | sort) >"$d/tree"
cp "$base/HandlerEnvironment.json" "$d/" 2>/dev/null
newest=$(ls -t "$base"/config/*.settings 2>/dev/null | head -1)
[ -n "$newest" ] && { basename "$newest"; cat "$newest"; } >"$d/settings"
:
`;
const scripts = {
  install: PROBE,
  enable: PROBE,
  update: PROBE,
  disable: PROBE,
  uninstall: PROBE,
};
const failing = (operation: keyof typeof scripts) => ({
  ...scripts,
  [operation]: `${PROBE}echo "it broke" >&2; echo "really"; exit 51\n`,
});
const packages: readonly PackageDescription[] = [
  { name: "Diff.Single", version: "1.0.0", scripts },
  { name: "Diff.Single", version: "1.1.0", scripts },
  {
    name: "Diff.Single",
    version: "2.0.0",
    scripts,
    manifest: { updateMode: "UpdateWithoutInstall" },
  },
  { name: "Diff.Multi", version: "1.0.0", scripts, manifest: { supportsMultipleExtensions: true } },
  { name: "Diff.Multi", version: "1.2.0", scripts, manifest: { supportsMultipleExtensions: true } },
  { name: "Diff.Broken", version: "1.0.0", scripts: failing("enable") },
  { name: "Diff.Stubborn", version: "1.0.0", scripts: failing("disable") },
  { name: "Diff.Stubborn", version: "1.1.0", scripts },
  { name: "Diff.Tolerant", version: "1.0.0", scripts: failing("uninstall") },
  {
    name: "Diff.Tolerant",
    version: "1.1.0",
    scripts,
    manifest: { continueOnUpdateFailure: "True" },
  },
  { name: "Diff.Bare", version: "1.0.0", scripts },
];
const odd = {
  text: 'ü \u{1f600} \\ "',
  nested: { list: [1, null, true, 1.5], empty: {} },
  zero: 0,
};
const one = (name: string, version: string, sequence: number): ExtensionDescription => ({
  name,
  version,
  settings: { sequence, public: odd, protected: { secret: 1 } },
});
const multi = (
  version: string,
  ...entries: [string, number, ("enabled" | "disabled")?][]
): ExtensionDescription => ({
  name: "Diff.Multi",
  version,
  multi: entries.map(([name, sequence, state = "enabled"]) => ({
    name,
    sequence,
    state,
    public: { name },
  })),
});
const gone = (extension: ExtensionDescription): ExtensionDescription => ({
  ...extension,
  state: "uninstall",
});

const STAGES: readonly (readonly ExtensionDescription[])[] = [
  [
    one("Diff.Single", "1.0.0", 0),
    multi("1.0.0", ["a", 0], ["b", 0]),
    one("Diff.Broken", "1.0.0", 3),
    one("Diff.Stubborn", "1.0.0", 0),
    one("Diff.Tolerant", "1.0.0", 0),
    { name: "Diff.Bare", version: "1.0.0" },
  ],
  [
    one("Diff.Single", "1.0.0", 1),
    multi("1.0.0", ["a", 1], ["b", 1, "disabled"]),
    one("Diff.Stubborn", "1.1.0", 1),
    one("Diff.Tolerant", "1.1.0", 1),
  ],
  [
    one("Diff.Single", "1.1.0", 2),
    multi("1.2.0", ["a", 2], ["c", 2]),
    { ...one("Diff.Tolerant", "1.1.0", 1), state: "disabled" },
  ],
  [
    one("Diff.Single", "2.0.0", 3),
    gone(multi("1.2.0", ["a", 2], ["c", 2])),
    gone(one("Diff.Tolerant", "1.1.0", 1)),
  ],
  [one("Diff.Single", "1.1.0", 4)],
  [gone(one("Diff.Single", "1.1.0", 4))],
];
const goalStates: readonly GoalStateDescription[] = STAGES.map((extensions, index) => ({
  incarnation: String(index + 1),
  extensions,
}));
const SCENARIO: Scenario = { dhcp: {}, packages, goalStates };

/** Everything of a run that the platform or an extension can see, as text by place. */
type Picture = ReadonlyMap<string, string>;

async function picture(sandbox: Sandbox, fabric: Fabric): Promise<Picture> {
  const seen = new Map<string, string>();
  for (const [index] of STAGES.entries()) {
    if (index > 0) await fabric.setGoalState(index);
    const sequence = String(index + 1);
    const event = await fabric.waitFor(
      (candidate) =>
        candidate.type === "status" &&
        candidate.status.document.aggregateStatus.vmArtifactsAggregateStatus
          ?.goalStateAggregateStatus.inSvdSeqNo === sequence,
      60_000,
      `the status of goal state ${sequence}`,
    );
    if (event.type !== "status") throw new Error("not a status");
    const handlers = event.status.document.aggregateStatus.handlerAggregateStatus;
    for (const handler of handlers)
      seen.set(
        `status ${sequence} ${handler.handlerName} ${handler.runtimeSettingsStatus?.extensionName ?? ""}`,
        JSON.stringify(handler, undefined, 1),
      );
    const lib = path.join(sandbox.root, "var/lib/waagent");
    for (const name of readdirSync(lib).filter((entry) => entry.startsWith("Diff.")))
      for (const [file, text] of filesBelow(path.join(lib, name)))
        if (/^(config|status)\//.test(file) || !file.includes("/"))
          seen.set(`disk ${sequence} ${name}/${file}`, text);
    seen.set(
      `list ${sequence}`,
      readdirSync(lib)
        .filter((entry) => entry.startsWith("Diff."))
        .sort()
        .join("\n"),
    );
  }
  const probes = path.join(sandbox.root, "var/lib/probe");
  for (const name of readdirSync(probes)) {
    seen.set(`order ${name}`, readdirSync(path.join(probes, name)).sort().join("\n"));
    for (const [file, text] of filesBelow(path.join(probes, name)))
      seen.set(`command ${name}/${file}`, text);
  }
  return seen;
}

function filesBelow(directory: string): [file: string, text: string][] {
  if (!existsSync(directory) || !statSync(directory).isDirectory()) return [];
  return readdirSync(directory, { recursive: true })
    .map(String)
    .filter((file) => statSync(path.join(directory, file)).isFile())
    .map((file): [string, string] => {
      const stat = statSync(path.join(directory, file));
      const text =
        stat.size > 100_000
          ? `${stat.size} bytes`
          : readFileSync(path.join(directory, file), "utf8");
      return [file, `mode ${(stat.mode & 0o777).toString(8)}\n${text}`];
    });
}

differenceTest(
  "extensions.md EXT-14 EXT-52 EXT-54 EXT-63 EXT-70 EXT-74 EXT-76 EXT-79 EXT-109 E2E-01 E2E-07 E2E-29 E2E-37: the same goal states on Debian's agent and on ours look the same to extensions and to the platform, but for the reviewed list",
  async () => {
    const run = async (isReference: boolean): Promise<Picture> => {
      await using sandbox = await createSandbox({
        network: "pair",
        ...(isReference ? {} : { binds: [{ from: await binary(), to: "/usr/sbin/waagent" }] }),
      });
      const configuration = AGENT_CONF.replace(
        "Provisioning.Agent=waagent",
        "Provisioning.Agent=disabled",
      );
      if (isReference) await installReference(sandbox, configuration);
      else sandbox.write("/etc/waagent.conf", configuration);
      await using fabric = await startHost(sandbox, SCENARIO);
      const agent = isReference
        ? startReference(sandbox)
        : sandbox.spawn(["/usr/sbin/waagent", "-daemon"]);
      try {
        return await picture(sandbox, fabric);
      } catch (error) {
        console.error(agent.output().slice(-6000));
        throw error;
      }
    };
    const [reference, ours] = await Promise.all([run(true), run(false)]);
    expect(reference.size).toBeGreaterThan(50);
    const found = differences(reference, ours);
    const unexpected = found.filter(
      (difference) => !REVIEWED.some((entry) => isReviewed(difference, entry)),
    );
    expect(
      unexpected.map(({ place, side, line }) => `${place} ${side === "ours" ? "+" : "-"} ${line}`),
    ).toEqual([]);
    const unused = REVIEWED.filter(
      (entry) => !found.some((difference) => isReviewed(difference, entry)),
    );
    expect(unused.map((entry) => entry.why)).toEqual([]);
  },
  240_000,
);
