import { expect, test } from "bun:test";
import { loadConfig } from "../../../src/config/load.ts";
import { formatWarning } from "../../../src/config/parse.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const PREFERRED = { preferred: "/etc/waagent.conf" } as const;

test("provisioning.md CONF-01 DB-21: a missing file leaves the defaults and says so", () => {
  using system = createFakeSystem();
  const loaded = loadConfig(system, PREFERRED);
  expect(loaded.config).toEqual(defaultConfig());
  expect(loaded.file).toBeUndefined();
  expect(loaded.warnings.map(formatWarning)).toEqual([
    "/etc/waagent.conf: The file does not exist and none of /usr/share/oem/waagent.conf, /oem/waagent.conf, /usr/share/waagent/waagent.conf, /usr/share/defaults/waagent/waagent.conf, /usr/local/etc/waagent.conf",
    "/etc/waagent.conf: No configuration was read; every key has its default value",
  ]);
});

test("provisioning.md CONF-01 DB-21: empty and unreadable files leave the defaults and are named", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/etc/waagent.conf");
  const directory = loadConfig(system, PREFERRED);
  expect(directory.config).toEqual(defaultConfig());
  expect(directory.warnings[0]?.message).toStartWith("The file could not be read: ");
  system.files.write("/etc/empty.conf", " \n\n");
  const empty = loadConfig(system, { ...PREFERRED, configured: "/etc/empty.conf" });
  expect(empty.warnings.map(formatWarning)[0]).toBe("/etc/empty.conf: The file is empty");
  system.files.write("/etc/large.conf", "#".repeat(1024 * 1024 + 1));
  const large = loadConfig(system, { ...PREFERRED, configured: "/etc/large.conf" });
  expect(large.file).toBeUndefined();
});

test("provisioning.md OS-14 DB-32: the OEM path falls back to /etc and the other way round", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/etc");
  system.files.write("/etc/waagent.conf", "Logs.Verbose=y\n");
  expect(loadConfig(system, { preferred: "/usr/share/oem/waagent.conf" }).file).toBe(
    "/etc/waagent.conf",
  );
  system.files.makeDirectory("/usr/share/oem");
  system.files.write("/usr/share/oem/waagent.conf", "Logs.Verbose=n\n");
  expect(loadConfig(system, { preferred: "/usr/share/oem/waagent.conf" }).file).toBe(
    "/usr/share/oem/waagent.conf",
  );
  system.files.remove("/etc/waagent.conf");
  expect(loadConfig(system, PREFERRED).file).toBe("/usr/share/oem/waagent.conf");
});

test("a configured path is the only one that is tried", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/etc");
  system.files.write("/etc/waagent.conf", "Logs.Verbose=y\n");
  const loaded = loadConfig(system, { ...PREFERRED, configured: "/etc/other.conf" });
  expect(loaded.config["Logs.Verbose"]).toBe(false);
  expect(loaded.file).toBeUndefined();
});

test("a byte that is not UTF-8 costs a warning, not the configuration; a byte order mark costs nothing", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/etc");
  const bytes = (text: string): Uint8Array =>
    Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  system.files.write("/etc/waagent.conf", bytes("# caf\xe9\nLogs.Verbose=y\n"));
  const latin = loadConfig(system, PREFERRED);
  expect(latin.config["Logs.Verbose"]).toBe(true);
  expect(latin.warnings).toHaveLength(1);
  system.files.write("/etc/waagent.conf", bytes("\xef\xbb\xbfLogs.Verbose=y\n"));
  const marked = loadConfig(system, PREFERRED);
  expect(marked.config["Logs.Verbose"]).toBe(true);
  expect(marked.warnings).toEqual([]);
});
