import { expect } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { runExtension } from "../fabric/author.ts";
import type { ExtensionDescription, Scenario } from "../fabric/scenario.ts";
import { buildExtension, RECORDING_SCRIPT } from "../fixtures/extensions/package.ts";
import { SHAPES } from "../fixtures/extensions/shapes.ts";
import { missing, testUnless } from "../support/skip.ts";
import { AGENT_CONF, startGuest } from "./guest.ts";
import { canSandbox } from "./sandbox.ts";

const able = canSandbox();
const guestTest = testUnless(able.ok ? missing({ programs: ["openssl", "mkfifo"] }) : able.reason);
const CONFIGURATION = AGENT_CONF.replace(
  "Provisioning.Agent=waagent",
  "Provisioning.Agent=disabled",
);

const extensions: readonly ExtensionDescription[] = SHAPES.map(
  ({ extension: { name, version }, multi, publicSettings, protectedSettings }) => ({
    ...{ name, version },
    ...(multi === undefined
      ? {
          settings: {
            sequence: 2,
            public: publicSettings ?? {},
            ...(protectedSettings === undefined ? {} : { protected: protectedSettings }),
          },
        }
      : { multi: multi.map((one) => ({ name: one, sequence: 2 })) }),
  }),
);
const SCENARIO: Scenario = {
  dhcp: {},
  packages: SHAPES.map(({ extension }) => ({
    name: extension.name,
    version: extension.version,
    archive: Buffer.from(buildExtension(extension)).toString("base64"),
  })),
  goalStates: [{ incarnation: "1", extensions }],
};

guestTest(
  `extensions.md EXT-21 EXT-45 EXT-46 EXT-55 EXT-72 EXT-79 EXT-121 DB-05 DB-14 E2E-02 E2E-50: ${SHAPES.length} habits of extensions, all in one goal state of the compiled agent`,
  async () => {
    await using guest = await startGuest(SCENARIO, {
      configuration: CONFIGURATION,
      prepare: (sandbox) =>
        sandbox.write(
          "/usr/local/sbin/reboot",
          "#!/bin/sh\necho asked >/var/lib/reboot-asked\n",
          0o755,
        ),
    });
    const event = await guest.fabric.waitFor(
      (candidate) =>
        candidate.type === "status" &&
        candidate.status.document.aggregateStatus.vmArtifactsAggregateStatus
          ?.goalStateAggregateStatus.status === "Success" &&
        candidate.status.document.aggregateStatus.handlerAggregateStatus.some(
          (one) =>
            one.runtimeSettingsStatus?.settingsStatus.status.formattedMessage.message === "late",
        ),
      60_000,
      "the end of the pass and the late status",
    );
    if (event.type !== "status") throw new Error("Only a status was waited for");
    const handlers = event.status.document.aggregateStatus.handlerAggregateStatus;
    for (const { extension, expected } of SHAPES) {
      const found = handlers.filter((one) => one.handlerName === extension.name).at(-1);
      const settings = found?.runtimeSettingsStatus?.settingsStatus.status;
      expect([extension.name, found?.status, found?.code, settings?.status]).toEqual([
        ...[extension.name, expected.status, expected.code, expected.settings],
      ]);
      if (expected.message !== undefined)
        expect(found?.formattedMessage?.message).toContain(expected.message);
      if (expected.text !== undefined)
        expect(settings?.formattedMessage.message).toContain(expected.text);
    }
    expect(handlers.filter((one) => one.handlerName === "Shape.Multi").length).toBe(2);
    expect(guest.sandbox.read("/var/lib/reboot-asked")).toBe("asked\n");
    expect(guest.sandbox.read("/var/lib/waagent/Shape.Rewriting-1.0.0/config/2.settings")).toBe(
      '{"mine": true}\n',
    );
    expect(guest.fabric.violations).toEqual([]);
  },
  90_000,
);

guestTest(
  "an author's package goes through its whole life and what the platform sees is printed; a bad one is told apart",
  async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "waagent-author-"));
    try {
      const run = async (script: string): Promise<{ code: number; text: string }> => {
        let text = "";
        const file = path.join(folder, "Contoso.Demo__1.0.0.zip");
        writeFileSync(file, buildExtension({ name: "Demo", version: "1", script }));
        writeFileSync(path.join(folder, "s.json"), '{"a": 1}');
        const code = await runExtension({
          ...{ file, settings: path.join(folder, "s.json"), keepLogs: path.join(folder, "logs") },
          write: (more) => void (text += more),
        });
        return { code, text };
      };
      const good = await run(RECORDING_SCRIPT.replace("exit 0", 'echo "said $1"\nexit 0'));
      expect(good.text).toContain("stdout  said update");
      expect(good.text).toContain("platform  1.0.1 Ready, code 0: Plugin enabled");
      expect([good.code, good.text.endsWith("Everything went as it should.\n")]).toEqual([0, true]);
      const bad = await run(
        RECORDING_SCRIPT.replace("exit 0", '[ "$1" = enable ] && exit 7\nexit 0'),
      );
      expect(bad.code).toBe(1);
      expect(bad.text).toContain("PROBLEM  the handler is NotReady");
      expect(bad.text).toContain("Non-zero exit code: 7");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  90_000,
);
