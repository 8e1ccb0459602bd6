import { expect, test } from "bun:test";
import { formatWarning, parseConfig, readAssignments } from "../../../src/config/parse.ts";
import { defaultConfig } from "../../../src/config/table.ts";

const FILE = "/etc/waagent.conf";
const parse = (text: string) => parseConfig(text, FILE);
const warningsOf = (text: string): readonly string[] => parse(text).warnings.map(formatWarning);
const valueOf = (line: string): string | undefined => readAssignments(line, FILE)[0]?.text;

test("provisioning.md CONF-02: a line counts when it has a = and no # in front", () => {
  const lines = readAssignments("# A=1\n#B=2\nC\n  D = 3\n\t# E=4\n\n=5\nF==6", FILE);
  expect(lines.map(({ line, key, text }) => [line, key, text])).toEqual([
    [4, "D", "3"],
    [7, "", "5"],
    [8, "F", "=6"],
  ]);
});

test.each([
  ["A=1 # comment", "1"],
  ["A=1#2", "1"],
  ['A= "y" ', "y"],
  ['A="two words"', "two words"],
  ["A='y'", "'y'"],
  ["A=", ""],
  ["A=#x", ""],
  ["A=a=b,c=d", "a=b,c=d"],
  ['A=" # "', ""],
])("provisioning.md CONF-03: %p has the value %p", (line, expected) => {
  expect(valueOf(line)).toBe(expected);
});

test("provisioning.md DB-21: CRLF ends a line, also behind quotes", () => {
  expect(valueOf('A="y"\r\nB=n\r\n')).toBe("y");
  expect(parse("Logs.Verbose=y\r\nOS.EnableFIPS=y\r\n").config).toMatchObject({
    "Logs.Verbose": true,
    "OS.EnableFIPS": true,
  });
});

test("provisioning.md CONF-04: None unsets, also in quotes and after another value; the last one wins", () => {
  expect(parse("Lib.Dir=/a\nLib.Dir=None\n").config["Lib.Dir"]).toBe("/var/lib/waagent");
  expect(parse('Lib.Dir=/a\nLib.Dir="None"\n').config["Lib.Dir"]).toBe("/var/lib/waagent");
  expect(parse("Lib.Dir=/a\nLib.Dir=/b\n").config["Lib.Dir"]).toBe("/b");
  expect(parse("ResourceDisk.MountOptions=none\n").config["ResourceDisk.MountOptions"]).toBe(
    "none",
  );
});

test("provisioning.md CONF-05: keys are case-sensitive and unknown ones are ignored", () => {
  const { config } = parse("autoupdate.frequency=60\nAutoUpdate.Frequency=70\nNo.Such=1\n");
  expect(config).toEqual(defaultConfig());
  expect(parse("Autoupdate.Frequency=60\n").config["Autoupdate.Frequency"]).toBe(60);
});

test.each([
  ["y", true],
  ["Y", true],
  ["n", false],
  ["N", false],
])("provisioning.md CONF-06: %p is a boolean", (text, expected) => {
  expect(parse(`Logs.Console=${text}\n`).config["Logs.Console"]).toBe(expected);
  expect(warningsOf(`Logs.Console=${text}\n`)).toEqual([]);
});

test.each(["yes", "true", "1", "", "no", "0", "'n'"])(
  "provisioning.md CONF-06 DB-21: %p is no boolean, the default applies with a warning",
  (text) => {
    expect(parse(`Logs.Console=${text}\n`).config["Logs.Console"]).toBe(true);
    expect(warningsOf(`# one\nLogs.Console=${text}\n`)).toEqual([
      `/etc/waagent.conf:2: Logs.Console must be y or n, not "${text}"; y is used`,
    ]);
  },
);

test.each([
  ["90", 90],
  ["+90", 90],
  ["1_000", 1000],
  ["0090", 90],
])("provisioning.md CONF-06: %p is an integer", (text, expected) => {
  expect(parse(`Logs.CollectPeriod=${text}\n`).config["Logs.CollectPeriod"]).toBe(expected);
});

test.each(["5*60", "0x10", "12.5", "", "1__0", "_1", "1_", "ten", "1e3", "٣"])(
  "provisioning.md CONF-06 AT-20 DB-21: %p is no integer, the default applies with a warning",
  (text) => {
    const { config, warnings } = parse(`OS.EnableFirewallPeriod=${text}\n`);
    expect(config["OS.EnableFirewallPeriod"]).toBe(300);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatchObject({ file: FILE, line: 1, key: "OS.EnableFirewallPeriod" });
    expect(warnings[0]?.message).toEndWith("300 is used");
  },
);

test("provisioning.md CONF-06: an empty string is a value; a path must be absolute", () => {
  expect(parse("AutoUpdate.GAFamily=\n").config["AutoUpdate.GAFamily"]).toBe("");
  const { config, warnings } = parse("Lib.Dir=var/lib\nPid.File=\n");
  expect(config["Lib.Dir"]).toBe("/var/lib/waagent");
  expect(config["Pid.File"]).toBe("/var/run/waagent.pid");
  expect(warnings.map(({ message }) => message)).toEqual([
    'Lib.Dir must be an absolute path, not "var/lib"; "/var/lib/waagent" is used',
    'Pid.File must be an absolute path, not ""; "/var/run/waagent.pid" is used',
  ]);
});

test("provisioning.md DB-21: a number out of range becomes the nearest that is allowed", () => {
  const { config } = parse(
    "Extensions.GoalStatePeriod=0\nLogs.CollectPeriod=-5\nProvisioning.PasswordCryptSaltLength=99\nHttpProxy.Port=70000\n",
  );
  expect(config["Extensions.GoalStatePeriod"]).toBe(1);
  expect(config["Logs.CollectPeriod"]).toBe(60);
  expect(config["Provisioning.PasswordCryptSaltLength"]).toBe(16);
  expect(config["HttpProxy.Port"]).toBeUndefined();
  expect(warningsOf("Extensions.GoalStatePeriod=9999999999999999999999\n")).toEqual([
    "/etc/waagent.conf:1: Extensions.GoalStatePeriod must be between 1 and 3600, not 9999999999999999999999; 3600 is used",
  ]);
});

test("provisioning.md DB-21: unknown keys are named with the likely right one, inert ones are silent", () => {
  expect(
    warningsOf(
      "Log.Verbose=y\nFoo=1\nRole.StateConsumer=None\nProvisioning.Enabled=y\n  # x=1\n=1\n",
    ),
  ).toEqual([
    '/etc/waagent.conf:1: The key "Log.Verbose" is unknown and ignored; did you mean Logs.Verbose?',
    '/etc/waagent.conf:2: The key "Foo" is unknown and ignored',
    "/etc/waagent.conf:6: There is a value without a key; the line is ignored",
  ]);
});

test("provisioning.md CONF-93: keys of shipped files that nothing reads are accepted silently", () => {
  const text = [
    "LBProbeResponder=y",
    "Network.Interface=eth0",
    "Role.StateConsumer=None",
    "Role.ConfigurationConsumer=None",
    "Role.TopologyConsumer=None",
    "Provisioning.Enabled=y",
    "Provisioning.UseCloudInit=n",
    "OS.SshdConfigPath=/config/ssh/sshd_config",
    "CGroups.EnforceLimits=n",
    "CGroups.Excluded=a,b",
    "Home.Dir=/home",
  ].join("\n");
  expect(parse(text)).toMatchObject({ config: defaultConfig(), warnings: [] });
});

test("provisioning.md CONF-11 CONF-07: UpdateToLatestVersion follows Enabled unless it is present; both warn", () => {
  const follow = parse("AutoUpdate.Enabled=n\n");
  expect(follow.config["AutoUpdate.UpdateToLatestVersion"]).toBe(false);
  expect(follow.origins["AutoUpdate.UpdateToLatestVersion"]).toEqual({
    from: "keys",
    keys: ["AutoUpdate.Enabled"],
  });
  const both = parse("AutoUpdate.Enabled=n\nAutoUpdate.UpdateToLatestVersion=y\n");
  expect(both.config["AutoUpdate.UpdateToLatestVersion"]).toBe(true);
  expect(both.warnings.map(({ line }) => line)).toEqual([2]);
  expect(parse("AutoUpdate.Enabled=\n").present.has("AutoUpdate.Enabled")).toBe(true);
  expect(parse("AutoUpdate.Enabled=None\n").present.has("AutoUpdate.Enabled")).toBe(false);
});

test("provisioning.md CONF-20: the initial period follows the period", () => {
  expect(parse("Extensions.GoalStatePeriod=30\n").config["Extensions.InitialGoalStatePeriod"]).toBe(
    30,
  );
  expect(
    parse("Extensions.GoalStatePeriod=30\nExtensions.InitialGoalStatePeriod=2\n").config[
      "Extensions.InitialGoalStatePeriod"
    ],
  ).toBe(2);
});

test("provisioning.md CONF-31: the RDMA driver check is on when another RDMA key is, and off by default", () => {
  expect(parse("").config["OS.CheckRdmaDriver"]).toBe(false);
  expect(parse("OS.EnableRDMA=y\n").config["OS.CheckRdmaDriver"]).toBe(true);
  expect(parse("OS.EnableRDMA=y\nOS.CheckRdmaDriver=n\n").config["OS.CheckRdmaDriver"]).toBe(false);
});

test("provisioning.md CONF-21 DB-21: the cloud-init time limit is an integer", () => {
  expect(
    parse("Extensions.WaitForCloudInitTimeout=120\n").config["Extensions.WaitForCloudInitTimeout"],
  ).toBe(120);
  expect(parse("").config["Extensions.WaitForCloudInitTimeout"]).toBe(3600);
});

test("provisioning.md CONF-44: any text of OS.SshClientAliveInterval passes through", () => {
  expect(parse("OS.SshClientAliveInterval=5m\n").config["OS.SshClientAliveInterval"]).toBe("5m");
});

test("every value knows its line", () => {
  const { origins } = parse("\nLogs.Verbose=y\nLogs.Verbose=n\nLogs.Console=maybe\n");
  expect(origins["Logs.Verbose"]).toEqual({ from: "file", file: FILE, line: 3 });
  expect(origins["Logs.Console"]).toEqual({ from: "default" });
  expect(origins["Lib.Dir"]).toEqual({ from: "default" });
});

test("a word outside the list is kept and warned about", () => {
  const { config, warnings } = parse("Provisioning.Agent=Auto\n");
  expect(config["Provisioning.Agent"]).toBe("Auto");
  expect(warnings.map(({ message }) => message)).toEqual([
    'Provisioning.Agent should be one of auto, waagent, cloud-init, disabled; "Auto" is used',
  ]);
});

test("names of built-in properties are unknown keys, long and binary ones stay on one short line", () => {
  const messages = warningsOf(`constructor=1\n__proto__=y\n${"x".repeat(5000)}\u0007=1\n`);
  expect(messages).toHaveLength(3);
  expect(messages.every((line) => line.length < 200 && !line.includes("\n"))).toBe(true);
});

test("garbage of any kind gives a whole configuration", () => {
  let seed = 7;
  const random = (limit: number): number => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    return seed % limit;
  };
  const words = [
    "=",
    "#",
    '"',
    "\r",
    "\n",
    "y",
    "None",
    "Logs.Verbose",
    "\0",
    "é",
    "-1",
    "Lib.Dir",
    " ",
  ];
  for (let round = 0; round < 300; round += 1) {
    const text = Array.from({ length: random(60) }, () => words[random(words.length)]).join("");
    const { config } = parse(text);
    expect(typeof config["Logs.Verbose"]).toBe("boolean");
    expect(config["Lib.Dir"].startsWith("/")).toBe(true);
  }
});

test("provisioning.md CONF-08 AT-20: deleting a key's lines and appending one makes it the last word", () => {
  const before = "Logs.Verbose=n\n# Logs.Verbose=n\nLogs.Console=y\n";
  const after = `${before.replaceAll(/^Logs\.Verbose=.*\n/gm, "")}Logs.Verbose=y\n`;
  const { config, origins, warnings } = parse(after);
  expect(config["Logs.Verbose"]).toBe(true);
  expect(origins["Logs.Verbose"]).toEqual({ from: "file", file: FILE, line: 3 });
  expect(warnings).toEqual([]);
});

test("system.md LEG-05: keys of the 2.0 agent are accepted without a word and change nothing", () => {
  const text = [
    "Network.Interface=eth1",
    "Logs.File=/var/log/x.log",
    "Provisioning.Enabled=n",
    "Provisioning.UseCloudInit=y",
    "OS.SshdConfigPath=/x",
    "CGroups.EnforceLimits=y",
    "CGroups.Excluded=a,b",
  ].join("\n");
  expect(warningsOf(text)).toEqual([]);
  expect(parse(text).config).toEqual(defaultConfig());
});
