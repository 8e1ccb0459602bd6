import { expect, test } from "bun:test";
import { type Arguments, OPERATOR_WORDS, parseArguments } from "../../../src/cli/arguments.ts";

const NOTHING: Arguments = {
  verb: "help",
  verbose: false,
  debug: false,
  force: false,
  full: false,
  dryRun: false,
  configurationPaths: [],
  endpoint: undefined,
  root: undefined,
};

function classic(...argv: readonly string[]): Arguments {
  const parsed = parseArguments(argv);
  if ("operator" in parsed) throw new Error(`${argv.join(" ")} is an operator command`);
  return parsed;
}

test.each([
  [[], {}],
  [["-bogus", "-version"], {}],
  [["-version", "-bogus"], {}],
  [["+version"], {}],
  [["-Version"], {}],
  [["", "-version"], { verb: "version" }],
  [["-deprovision", "-force"], { verb: "deprovision", force: true }],
  [["--deprovision+user", "--force"], { verb: "deprovision+user", force: true }],
  [["-daemon", "-version"], { verb: "version" }],
  [["-version", "-daemon"], { verb: "daemon" }],
  [["-setup-firewall=168.63.129.16"], { verb: "setup-firewall", endpoint: "168.63.129.16" }],
  [["-setup-firewall=1.2.3"], {}],
  [["-setup-firewall"], {}],
  [["-setup-firewall=1.1.1.1.garbage"], { verb: "setup-firewall", endpoint: "1.1.1.1." }],
  [
    ["-configuration-path:/etc/passwd", "-daemon"],
    { verb: "daemon", configurationPaths: ["/etc/passwd"] },
  ],
  [["-configuration-path", "/etc/passwd"], {}],
  [["-configuration-path:"], {}],
  [["-full"], { full: true }],
  [["-show-configuration", "-verbose"], { verb: "show-configuration", verbose: true }],
  [["-run-exthandlers", "-debug"], { verb: "run-exthandlers", debug: true }],
] as const)("provisioning.md CLI-10; extensions.md RUN-01: %j", (argv, expected) => {
  expect(classic(...argv)).toEqual({ ...NOTHING, ...expected });
});

test("provisioning.md CLI-01; system.md INIT-01: any run of dashes and slashes, trailing text ignored, case kept", () => {
  for (const prefix of ["", "-", "--", "/", "-/-", "///"]) {
    expect(classic(`${prefix}version`).verb).toBe("version");
    expect(classic(`${prefix}versionfoo`).verb).toBe("version");
    expect(classic(`${prefix}start`).verb).toBe("start");
    expect(classic(`${prefix}startxyz`).verb).toBe("start");
  }
  expect(classic("VERSION").verb).toBe("help");
  expect(classic(" version").verb).toBe("help");
});

test("provisioning.md CLI-02; system.md INIT-01: the last command wins, an unknown argument ends the scan", () => {
  expect(classic("start", "daemon", "register-service").verb).toBe("register-service");
  expect(classic("-verbose", "-bogus", "-force")).toEqual({ ...NOTHING, verbose: true });
  expect(classic("-", "-version").verb).toBe("help");
});

test("provisioning.md CLI-03; system.md INIT-01: tests go in order, so deprovision-user is plain deprovision", () => {
  expect(classic("-deprovision-user").verb).toBe("deprovision");
  expect(classic("-deprovisionuser").verb).toBe("deprovision");
  expect(classic("-deprovision+user").verb).toBe("deprovision+user");
  expect(classic("-deprovision+userx").verb).toBe("deprovision+user");
});

test("provisioning.md CLI-03; system.md INIT-02: every command, help also as usage and ?", () => {
  for (const verb of [
    "deprovision+user",
    "deprovision",
    "daemon",
    "start",
    "register-service",
    "run-exthandlers",
    "version",
    "show-configuration",
    "collect-logs",
  ] as const) {
    expect(classic(`-${verb}`).verb).toBe(verb);
  }
  for (const word of ["help", "usage", "?", "-h", "provision", "install"]) {
    expect(classic("-version", `-${word}`).verb).toBe("help");
  }
});

test.each([
  ["-configuration-path:/etc/waagent.conf", "/etc/waagent.conf"],
  ["configuration-path:../a_b-c.d/é٣", "../a_b-c.d/é٣"],
  ["--configuration-path:/a b", "/a"],
  ["/configuration-path:/a:b", "/a"],
  ["-configuration-path:/a=b", "/a"],
])("provisioning.md CLI-04: %p gives the path %p", (argument, expected) => {
  expect(classic(argument).configurationPaths).toEqual([expected]);
});

test("provisioning.md CLI-05: seven characters of digits and dots are enough for an endpoint", () => {
  expect(classic("--setup-firewall=1.1.1.1").endpoint).toBe("1.1.1.1");
  expect(classic("setup-firewall=.......").endpoint).toBe(".......");
  expect(classic("setup-firewall=1.1.1a1").verb).toBe("help");
});

test("provisioning.md CLI-07: debug and full are flags of their commands", () => {
  expect(classic("-collect-logs", "-full")).toEqual({
    ...NOTHING,
    verb: "collect-logs",
    full: true,
  });
  expect(classic("-debug")).toEqual({ ...NOTHING, debug: true });
});

test("an operator word counts only in front and spelled in full", () => {
  for (const word of OPERATOR_WORDS) {
    expect(parseArguments([word, "a", "--json"])).toEqual({
      operator: word,
      rest: ["a", "--json"],
      root: undefined,
    });
    expect(parseArguments(["--root=/x", word])).toEqual({ operator: word, rest: [], root: "/x" });
    expect(classic(`-${word}`).verb).toBe("help");
    expect(classic(`${word}x`).verb).toBe("help");
    expect(classic("-daemon", word).verb).toBe("help");
  }
});

test("a scratch root may stand anywhere and must be named", () => {
  expect(classic("-daemon", "--root=/tmp/a b")).toEqual({
    ...NOTHING,
    verb: "daemon",
    root: "/tmp/a b",
  });
  expect(classic("-daemon", "--root=").verb).toBe("help");
  expect(classic("-daemon", "-root=/x").verb).toBe("help");
  expect(classic("-deprovision", "--dry-run").dryRun).toBe(true);
});

test("system.md CON-01: -serialconsole is a command again, with a dry run", () => {
  for (const word of ["-serialconsole", "--serialconsole", "serialconsole", "/serialconsole"])
    expect(parseArguments([word])).toMatchObject({ verb: "serialconsole", dryRun: false });
  expect(parseArguments(["-serialconsole", "--dry-run"])).toMatchObject({ dryRun: true });
});
