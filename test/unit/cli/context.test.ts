import { afterEach, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { USER_AGENT, VERSION } from "../../../src/base/identity.ts";
import { createContext, prepareGround } from "../../../src/cli/context.ts";

const made: string[] = [];

afterEach(() => {
  for (const directory of made.splice(0)) fs.rmSync(directory, { recursive: true, force: true });
});

function root(files: Readonly<Record<string, string>>): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-context-"));
  made.push(directory);
  for (const [name, text] of Object.entries({ "/var/log/.keep": "", ...files })) {
    const file = path.join(directory, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
  return directory;
}

const CONSOLE = { "/dev/console": "" };
const FEDORA = { "/etc/os-release": "ID=fedora\nVERSION_ID=40\n" };

async function logs(
  files: Readonly<Record<string, string>>,
  verbose = false,
): Promise<{ stdout: string; file: string; console: string }> {
  const directory = root({ ...FEDORA, ...CONSOLE, ...files });
  const ground = await prepareGround(directory, undefined);
  const lines: string[] = [];
  const { system } = createContext(ground, {
    identity: { thread: "Daemon", prefix: "Daemon" },
    verbose,
    write: (line) => lines.push(line),
  });
  system.log.verbose("small");
  system.log.info("large");
  const read = (file: string): string => {
    const text = fs.readFileSync(path.join(directory, file), "utf8");
    return text.replaceAll(/^\S+Z /gm, "");
  };
  return {
    stdout: lines.join("").replaceAll(/^\S+Z /gm, ""),
    file: read("/var/log/waagent.log"),
    console: read("/dev/console"),
  };
}

const INFO = "INFO Daemon Daemon large\n";
const BOTH = `VERBOSE Daemon Daemon small\n${INFO}`;
const QUIET = "Logs.Console=n\n";

test("provisioning.md CLI-09 LOG-02; system.md LOG-05: INFO goes to standard output and the log file", async () => {
  expect(await logs({ "/etc/waagent.conf": QUIET })).toEqual({
    stdout: INFO,
    file: INFO,
    console: "",
  });
});

test("provisioning.md CLI-09; system.md LOG-05: -verbose opens both, Logs.Verbose the file only", async () => {
  expect(await logs({ "/etc/waagent.conf": QUIET }, true)).toMatchObject({
    stdout: BOTH,
    file: BOTH,
  });
  expect(await logs({ "/etc/waagent.conf": `${QUIET}Logs.Verbose=y\n` })).toMatchObject({
    stdout: INFO,
    file: BOTH,
  });
});

test("provisioning.md LIFE-06; system.md LOG-05 LOG-06: the console has the lines until the machine is provisioned", async () => {
  expect((await logs({ "/etc/waagent.conf": "Logs.Verbose=n\n" })).console).toBe(INFO);
  expect(
    (
      await logs({
        "/etc/waagent.conf": "Lib.Dir=/state\n",
        "/state/provisioned": "",
      })
    ).console,
  ).toBe("");
});

test("provisioning.md DB-21 LOG-10: warnings about the configuration and an unknown distribution come first", async () => {
  const { file } = await logs({
    "/etc/os-release": "ID=nonesuch\n",
    "/etc/waagent.conf": `${QUIET}Bogus=1\n`,
  });
  expect(file.split("\n").slice(0, 2)).toEqual([
    'WARNING Daemon Daemon Configuration: /etc/waagent.conf:2: The key "Bogus" is unknown and ignored',
    "WARNING Daemon Daemon Unable to load distro implementation for nonesuch. Using default distro implementation instead.",
  ]);
});

test("wire-protocol.md HTTP-02: requests name the agent and its version, under a scratch root at the listed address", async () => {
  let seen: Headers | undefined;
  using server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => {
      seen = request.headers;
      return new Response("ok");
    },
  });
  const directory = root({
    ...FEDORA,
    "/etc/waagent.conf": QUIET,
    "/run/waagent-connect.json": JSON.stringify({
      "168.63.129.16:80": `127.0.0.1:${server.port}`,
    }),
  });
  const ground = await prepareGround(directory, undefined);
  const { system } = createContext(ground, {
    identity: { thread: "MainThread" },
    verbose: false,
    write: () => undefined,
  });
  const response = await system.http.request({
    method: "GET",
    url: "http://168.63.129.16/?comp=versions",
    proxy: "never",
  });
  expect(response.text()).toBe("ok");
  expect(seen?.get("user-agent")).toBe(USER_AGENT);
  expect(USER_AGENT).toBe(`WALinuxAgent/${VERSION}`);
});

test.each([
  ["[]", "must hold a JSON object"],
  ['{"a": 1}', "the value of a is not text"],
  ["{", "/run/waagent-connect.json"],
])("a bad list of addresses %p is named", async (text, reason) => {
  const directory = root({ ...FEDORA, "/run/waagent-connect.json": text });
  const ground = await prepareGround(directory, undefined);
  expect(() =>
    createContext(ground, {
      identity: { thread: "MainThread" },
      verbose: false,
      write: () => undefined,
    }),
  ).toThrow(reason);
});
