import type { Guest } from "../e2e/guest.ts";
import type { RunResult } from "../e2e/sandbox.ts";

/** The short table at the end of the demo. */
export async function printTable(
  guest: Guest,
  options: {
    readonly user: string;
    readonly login: RunResult;
    readonly say: (text: string) => void;
  },
): Promise<void> {
  const { sandbox, fabric } = guest;
  const account = (
    await sandbox.run(["getent", "passwd", options.user], { allowFailure: true })
  ).stdout.trim();
  const fingerprints = await sandbox.run(
    ["sh", "-c", 'for key in /etc/ssh/ssh_host_*.pub; do ssh-keygen -l -f "$key"; done'],
    { allowFailure: true },
  );
  const last = fabric.statusDocuments.at(-1)?.document.aggregateStatus;
  const goal = last?.vmArtifactsAggregateStatus?.goalStateAggregateStatus;
  const kinds = new Map<string, number>();
  for (const request of fabric.requests)
    kinds.set(request.kind, (kinds.get(request.kind) ?? 0) + 1);
  const rows: [string, string][] = [
    ["host name", (await sandbox.run(["hostname"])).stdout.trim()],
    [
      "provisioned user",
      account === ""
        ? "none"
        : account
            .split(":")
            .filter((_, index) => [0, 2, 5, 6].includes(index))
            .join("  "),
    ],
    [
      "ssh login",
      options.login.code === 0
        ? `as ${options.login.stdout.split("\n")[0]}, sudo as ${options.login.stdout.split("\n")[2]}`
        : `failed: ${options.login.stderr.trim()}`,
    ],
    ...fingerprints.stdout
      .trim()
      .split("\n")
      .map((line): [string, string] => ["ssh host key", line]),
    [
      "goal state",
      goal === undefined ? "none reported" : `${goal.status}, number ${String(goal.inSvdSeqNo)}`,
    ],
    ...(last?.handlerAggregateStatus ?? []).map((handler): [string, string] => [
      "extension",
      `${handler.handlerName} ${handler.handlerVersion}: ${handler.status}, ${handler.runtimeSettingsStatus?.settingsStatus.status.status ?? "no settings"}`,
    ]),
    [
      "requests served",
      `${fabric.requests.length} (${[...kinds].map(([kind, count]) => `${kind} ${count}`).join(", ")})`,
    ],
    ["violations", String(fabric.violations.length)],
  ];
  options.say("");
  for (const [index, [name, value]] of rows.entries())
    options.say(`${(rows[index - 1]?.[0] === name ? "" : name).padEnd(17)} ${value}`);
}
