import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { VERSION } from "../../src/base/identity.ts";
import { binary } from "../support/binary.ts";

/** The compiled agent's real command line, on scratch roots and as whoever runs the tests. */
let program = "";
let scratch = "";

beforeAll(async () => {
  program = await binary();
  scratch = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-cli-"));
});

afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }));

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...args: readonly string[]): Ended {
  return runWith("", ...args);
}

function runWith(input: string, ...args: readonly string[]): Ended {
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: "utf8",
    input,
    cwd: scratch,
    env: { PATH: "/usr/bin:/bin", HOME: scratch },
    timeout: 20_000,
  });
  return { code: status, stdout, stderr };
}

/** A fresh scratch root with the given files. */
function root(files: Readonly<Record<string, string>> = {}): string {
  const directory = fs.mkdtempSync(path.join(scratch, "root-"));
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(directory, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text, { mode: name.startsWith("/bin/") ? 0o755 : 0o644 });
  }
  return directory;
}

const DEBIAN = { "/etc/os-release": 'ID=debian\nVERSION_ID="12"\nNAME="Debian GNU/Linux"\n' };

describe("version and help", () => {
  test("provisioning.md CLI-20; extensions.md UPD-36; system.md INIT-06: three lines in every spelling, exit 0, no configuration", () => {
    const directory = root(DEBIAN);
    for (const word of ["-version", "--version", "/version", "version", "-versionfoo"]) {
      expect(run(word, `--root=${directory}`)).toEqual({
        code: 0,
        stdout: `WALinuxAgent-${VERSION} running on debian 12\nBun: ${Bun.version}\nGoal state agent: ${VERSION}\n`,
        stderr: "",
      });
    }
    expect(fs.readdirSync(directory)).toEqual(["etc"]);
  });

  test("provisioning.md CLI-02 CLI-06 CLI-22: no argument, help words and unknown ones print the usage and exit 0", () => {
    const { stdout, code } = run();
    expect(code).toBe(0);
    expect(stdout.startsWith(`\nusage: ${program} `)).toBe(true);
    for (const args of [["-help"], ["usage"], ["-?"], ["-bogus", "-version"], ["-provision"]]) {
      expect(run(...args)).toEqual({ code: 0, stdout, stderr: "" });
    }
  });

  test("a closed pipe ends it quietly", () => {
    const { stdout, stderr, status } = spawnSync(
      "/bin/sh",
      ["-c", `"$1" -help | head -c 1; "$1" config reference | head -c 1`, "sh", program],
      { encoding: "utf8", timeout: 20_000 },
    );
    expect({ stdout, stderr, status }).toEqual({ stdout: "\n#", stderr: "", status: 0 });
  });
});

describe("configuration", () => {
  test("provisioning.md CLI-04; system.md INIT-02; extensions.md RUN-01: a file that does not exist is exit 1, message and usage", () => {
    const { code, stdout, stderr } = run("-configuration-path:/no/such.conf", "-version");
    expect(code).toBe(1);
    expect(stderr).toBe("The configuration file /no/such.conf does not exist\n");
    expect(stdout).toStartWith("\nusage: ");
  });

  test("provisioning.md CLI-28: only `Key = value` lines on stdout, warnings with file and line on stderr", () => {
    const directory = root({
      ...DEBIAN,
      "/etc/waagent.conf":
        "Logs.Verbose=y\r\nLogs.Console=n\nExtensions.GoalStatePeriod=0\nBogus=1\n",
    });
    const { code, stdout, stderr } = run(`--root=${directory}`, "-show-configuration");
    expect(code).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    expect(lines).toHaveLength(76);
    expect(lines.every((line) => /^[A-Za-z0-9.]+ = .+$/.test(line))).toBe(true);
    expect(lines).toContain("Logs.Verbose = True");
    expect(lines).toContain("Extensions.GoalStatePeriod = 1");
    expect(stderr).toContain(
      " WARNING MainThread Configuration: /etc/waagent.conf:3: Extensions.GoalStatePeriod must be between 1 and 3600, not 0; 1 is used\n",
    );
    expect(stderr).toContain('/etc/waagent.conf:4: The key "Bogus" is unknown and ignored\n');
  });

  test("provisioning.md CLI-04: the given file is read and no other", () => {
    const directory = root({
      ...DEBIAN,
      "/etc/waagent.conf": "Logs.Verbose=y\n",
      "/etc/other.conf": "Lib.Dir=/elsewhere\n",
    });
    const { stdout } = run(
      `--root=${directory}`,
      "-configuration-path:/etc/other.conf",
      "-show-configuration",
    );
    expect(stdout).toContain("Logs.Verbose = False\n");
    expect(stdout).toContain("Lib.Dir = /elsewhere\n");
  });

  test("provisioning.md CLI-08 CLI-09; system.md LOG-05 LOG-11: log file and extension log directory are made", () => {
    const directory = root({ ...DEBIAN, "/var/log/.keep": "", "/etc/waagent.conf": "Bogus=1\n" });
    expect(run(`--root=${directory}`, "-show-configuration").code).toBe(0);
    expect(fs.statSync(path.join(directory, "var/log/azure")).mode & 0o777).toBe(0o755);
    expect(fs.readFileSync(path.join(directory, "var/log/waagent.log"), "utf8")).toMatch(
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z WARNING MainThread Configuration: /,
    );
  });

  test("provisioning.md CLI-08; system.md LOG-11: a file in place of the directory is an ERROR and stops nothing", () => {
    const directory = root({
      ...DEBIAN,
      "/etc/waagent.conf": "Logs.Verbose=n\n",
      "/var/log/azure": "",
    });
    const { code, stderr } = run(`--root=${directory}`, "-show-configuration");
    expect(code).toBe(0);
    expect(stderr).toMatch(/ ERROR MainThread .*\/var\/log\/azure is not a directory\n$/);
  });

  test("config check names each line and fails; config show tells where values come from", () => {
    const directory = root({
      ...DEBIAN,
      "/etc/waagent.conf": "# ok\nLogs.Verbose=yes\nHttpProxy.Host=http://me:pass@proxy\n",
    });
    expect(run(`--root=${directory}`, "config", "check")).toEqual({
      code: 1,
      stdout: '/etc/waagent.conf:2: Logs.Verbose must be y or n, not "yes"; n is used\n',
      stderr: "",
    });
    const { stdout } = run(`--root=${directory}`, "config", "show", "--changed");
    expect(stdout).toBe("HttpProxy.Host = http://<redacted>@proxy  # /etc/waagent.conf:3\n");
    const json = JSON.parse(run(`--root=${directory}`, "config", "show", "--json").stdout);
    expect(json.file).toBe("/etc/waagent.conf");
    expect(json.values["Logs.Verbose"]).toEqual({ value: false, origin: { from: "default" } });
  });

  test("a shipped file passes its own check", () => {
    const text = run("config", "default", "--distro=ubuntu").stdout;
    const directory = root({ ...DEBIAN, "/etc/waagent.conf": text });
    expect(run(`--root=${directory}`, "config", "check")).toEqual({
      code: 0,
      stdout: "/etc/waagent.conf: no problems\n",
      stderr: "",
    });
  });
});

describe("commands", () => {
  test("provisioning.md CLI-26; system.md INIT-05: registering says each step and runs it", () => {
    const directory = root({
      "/etc/os-release": "ID=azurelinux\nVERSION_ID=3.0\n",
      "/etc/waagent.conf": "Logs.Verbose=n\n",
      "/bin/systemctl": '#!/bin/sh\necho "$@" >> "${0%/*}/../called"\n',
    });
    const { code, stdout } = run(`--root=${directory}`, "-register-service");
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout:
        "Register WALinuxAgent service\nStop WALinuxAgent service\nStart WALinuxAgent service\n",
    });
    expect(fs.readFileSync(path.join(directory, "called"), "utf8")).toBe(
      "enable waagent\nstop waagent\nstart waagent\n",
    );
  });

  test("provisioning.md DB-19 LOG-01 LOG-02; system.md BET-17 INIT-03 LOG-02: a failing command is logged with its name and is not exit 0", () => {
    const directory = root({
      "/etc/os-release": "ID=azurelinux\nVERSION_ID=3.0\n",
      "/etc/waagent.conf": "Logs.Verbose=n\n",
    });
    const { code, stdout } = run(`--root=${directory}`, "-register-service");
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ERROR MainThread Failed to run 'register-service': .*systemctl/m,
    );
  });

  test("system.md DAEMON-03 DAEMON-07 wire-protocol.md CERT-19: helper programs see the daemon's version and OPENSSL_FIPS", () => {
    const directory = root({
      "/etc/os-release": "ID=azurelinux\nVERSION_ID=3.0\n",
      "/etc/waagent.conf": "OS.EnableFIPS=y\n",
      "/bin/systemctl": `#!/bin/sh
echo "$OPENSSL_FIPS $_AZURE_GUEST_AGENT_DAEMON_VERSION_" > "\${0%/*}/../seen"\n`,
    });
    expect(run(`--root=${directory}`, "-register-service").code).toBe(0);
    expect(fs.readFileSync(path.join(directory, "seen"), "utf8")).toBe(`1 ${VERSION}\n`);
  });

  test("provisioning.md CLI-29 CLI-05 LOG-03; system.md DAEMON-02 FW-07 LOG-10; extensions.md FW-02 FW-13: without a firewall program the event is an error, exit 1", () => {
    const directory = root({ ...DEBIAN, "/etc/waagent.conf": "Logs.Verbose=n\n" });
    const { code, stdout } = run(`--root=${directory}`, "-setup-firewall=168.63.129.16");
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /Z ERROR Firewall Firewall Event: name=WALinuxAgent, op=Firewall, message=/,
    );
  });

  test("provisioning.md CLI-23 DB-20; system.md INIT-04: -start returns at once, its child is a session of its own with no open streams", async () => {
    // The child must outlive the moment of the test: detection waits for this program.
    const directory = root({ "/bin/lsb_release": "#!/bin/sh\nexec /bin/sleep 8\n" });
    const started = run(`--root=${directory}`, "-start");
    expect(started).toEqual({ code: 0, stdout: "", stderr: "" });
    const child = await processWith([program, `--root=${directory}`, "-daemon"]);
    try {
      const stat = fs.readFileSync(`/proc/${child}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      expect([fields[2], fields[3]]).toEqual([String(child), String(child)]);
      for (const descriptor of [0, 1, 2]) {
        expect(fs.readlinkSync(`/proc/${child}/fd/${descriptor}`)).toBe("/dev/null");
      }
      expect(fs.readlinkSync(`/proc/${child}/cwd`)).toBe("/");
    } finally {
      process.kill(child, "SIGKILL");
    }
  });

  describe("deprovision", () => {
    const machine = (): string =>
      root({
        ...DEBIAN,
        "/etc/waagent.conf": "Provisioning.RegenerateSshHostKeyPair=y\nLogs.Console=n\n",
        "/etc/ssh/ssh_host_rsa_key": "key",
        "/var/lib/waagent/state": "x",
        "/var/log/azure/.keep": "",
      });
    const left = (directory: string): readonly string[] =>
      ["etc/ssh/ssh_host_rsa_key", "var/lib/waagent/state"].filter((file) =>
        fs.existsSync(path.join(directory, file)),
      );

    test("provisioning.md CLI-27 DEPROV-02 DEPROV-04 DEPROV-06: warnings, then the prompt; no is exit 0 and nothing is done", () => {
      const directory = machine();
      for (const answer of ["n\n", " y\n", "\n"]) {
        const { code, stdout } = runWith(answer, `--root=${directory}`, "-deprovision");
        expect(code).toBe(0);
        expect(stdout).toEndWith("Do you want to proceed (y/n)");
        expect(stdout).toContain("WARNING!");
        expect(left(directory)).toHaveLength(2);
      }
    });

    test("provisioning.md DB-22: the end of the input is no answer: nothing is done, exit 1", () => {
      const directory = machine();
      expect(runWith("", `--root=${directory}`, "-deprovision+user").code).toBe(1);
      expect(left(directory)).toHaveLength(2);
    });

    test("--dry-run says what would be done and does nothing", () => {
      const directory = machine();
      const { code, stdout } = run(`--root=${directory}`, "-deprovision", "--dry-run", "-force");
      expect(code).toBe(0);
      expect(stdout).toContain("/etc/ssh/ssh_host_rsa_key");
      expect(left(directory)).toHaveLength(2);
    });

    test("provisioning.md CLI-27 DEPROV-02 DEPROV-11 DEPROV-15: yes, or -force without a question, removes", () => {
      for (const [input, args] of [
        ["Yes\n", ["-deprovision"]],
        ["", ["-deprovision", "-force"]],
      ] as const) {
        const directory = machine();
        const { stdout } = runWith(input, `--root=${directory}`, ...args);
        expect(stdout.includes("Do you want to proceed (y/n)")).toBe(input !== "");
        expect(left(directory)).toEqual([]);
        expect(fs.existsSync(path.join(directory, "var/lib/waagent"))).toBe(true);
      }
    });
  });

  test("a scratch root that is none is refused", () => {
    expect(run("--root=/no/such/directory", "-daemon")).toEqual({
      code: 64,
      stdout: "",
      stderr: "--root=/no/such/directory is not a directory\n",
    });
  });

  test("--dry-run is refused where a command does not know it", () => {
    const directory = root(DEBIAN);
    expect(run(`--root=${directory}`, "-register-service", "--dry-run")).toEqual({
      code: 64,
      stdout: "",
      stderr: "-register-service cannot be tried with --dry-run\n",
    });
  });

  test("wrong operator arguments are named and exit 64", () => {
    expect(run("config", "chekc")).toMatchObject({
      code: 64,
      stderr: expect.stringMatching(/^waagent config has no command "chekc"\n/),
    });
    expect(run("config", "show", "--bogus").stderr).toStartWith("--bogus is unknown\n");
    expect(run("config", "default", "--distro").stderr).toStartWith("--distro needs a value\n");
    expect(run("manual", "extra").stderr).toStartWith('"extra" is one word too many\n');
    expect(run("config", "constructor").code).toBe(64);
    expect(run("config").stdout).not.toContain("\u001b");
  });

  test("the environment cannot turn the agent into something else for its own children", () => {
    const result = spawnSync(program, ["-version"], {
      encoding: "utf8",
      env: { BUN_OPTIONS: "", NODE_OPTIONS: "--require /no/such/file", LD_BIND_NOW: "1" },
    });
    expect(result.status).toBe(0);
    expect(result.stdout.split("\n")).toHaveLength(4);
  });
});

/** Waits for the process with exactly these words on its command line. */
async function processWith(words: readonly string[]): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    for (const name of fs.readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
      try {
        const text = fs.readFileSync(`/proc/${name}/cmdline`, "utf8");
        if (text === words.map((word) => `${word}\0`).join("")) return Number(name);
      } catch {
        // ended meanwhile
      }
    }
    await Bun.sleep(25);
  }
  throw new Error(`No process ${words.join(" ")} came up`);
}
