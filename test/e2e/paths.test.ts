import { describe, expect } from "bun:test";
import fs from "node:fs";
import path from "node:path";
import { JOURNAL } from "../fabric/package.ts";
import { firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { AGENT_CONF, startGuest } from "./guest.ts";
import { canSandbox, type Sandbox } from "./sandbox.ts";

const able = canSandbox();
const guestTest = testUnless(
  able.ok ? missing({ programs: ["useradd", "chpasswd", "openssl", "ssh-keygen"] }) : able.reason,
);

/** The paths of the README's table "What it writes", as patterns. */
function documented(): RegExp[] {
  const readme = fs.readFileSync(path.resolve(import.meta.dir, "../../README.md"), "utf8");
  const section = readme.slice(readme.indexOf("## What it writes"));
  const rows = section.slice(0, section.indexOf("\n## ", 5)).matchAll(/^\| (`\/.*?`) +\|/gm);
  return [...rows]
    .flatMap(([, cell = ""]) => [...cell.matchAll(/`([^`]+)`/g)].map(([, one = ""]) => one))
    .map((glob) => {
      const source = glob
        .replaceAll(/[.+^${}()|[\]\\]/g, "\\$&")
        .replaceAll("**", "\0")
        .replaceAll("*", "[^/]*")
        .replaceAll("/\0", "(?:/.*)?");
      return new RegExp(`^${source}$`);
    });
}

/** What the test itself puts there (the emulated storage's certificate too), and what sshd does when it is restarted. */
const OURS = [
  JOURNAL,
  "/var/lib/fabric-secret",
  "/etc/waagent.conf",
  "/usr/local/sbin/eject",
  "/run/sshd.pid",
  "/etc/ssl/certs/",
  "/usr/local/share/ca-certificates/",
  "/dev/",
];

function written(sandbox: Sandbox): string[] {
  const inRun = fs.readdirSync(`${sandbox.root}/run`, { recursive: true }) as string[];
  const volatile = inRun
    .filter((name) =>
      fs.lstatSync(`${sandbox.root}/run/${name}`, { throwIfNoEntry: false })?.isFile(),
    )
    .map((name) => `/run/${name}`);
  return sandbox
    .changes()
    .filter(({ kind }) => kind !== "directory")
    .map((change) => change.path)
    .concat(volatile)
    .filter(
      (file) => !OURS.some((own) => file === own || (own.endsWith("/") && file.startsWith(own))),
    );
}

describe("paths", () => {
  guestTest(
    "whatever the agent writes from first boot to the extension's status is in the README",
    async () => {
      const patterns = documented();
      expect(patterns.length).toBeGreaterThan(12);
      await using guest = await startGuest(firstBoot(), {
        configuration: AGENT_CONF.replace("OS.EnableFirewall=n", "OS.EnableFirewall=y"),
      });
      await guest.until("status:Fabric.Demo=success");
      await guest.until("telemetry");
      const files = written(guest.sandbox);
      expect(files.length).toBeGreaterThan(30);
      expect(files.filter((file) => !patterns.some((pattern) => pattern.test(file)))).toEqual([]);
    },
    60_000,
  );
});
