import { expect, test } from "bun:test";
import {
  editGrubDefault,
  editMenuLst,
  missingOptions,
  numaOption,
} from "../../../src/machine/boot-options.ts";
import {
  applyBootPlan,
  consoleOptions,
  describeBootPlan,
  planSerialConsole,
} from "../../../src/machine/serial-console.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

const machine = { architecture: "x86_64", kernelRelease: "6.1.0-18-cloud-amd64" };
const grub = { bootOptions: "grub2" } as const;
const CONSOLE = "console=tty1 console=ttyS0,115200n8 earlyprintk=ttyS0,115200";

test("system.md NUMA-01: kernels up to 2.6.37 get numa=off, each number compared by itself", () => {
  for (const release of ["2.6.32-431.el6.x86_64", "2.6.37", "2.6.18", "1.6.0"])
    expect(numaOption(release)).toBe("numa=off");
  for (const release of ["2.6.38", "2.7.1", "3.0.0", "5.4.0-1103-azure", "4.18.0", "unknown"])
    expect(numaOption(release)).toBeUndefined();
});

test("system.md NUMA-02: an option is added before the closing quote when it is absent, nothing else changes", () => {
  const text =
    '# GRUB\n\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash"\nGRUB_CMDLINE_LINUX=""\n';
  const edit = (key: "GRUB_CMDLINE_LINUX" | "GRUB_CMDLINE_LINUX_DEFAULT", body = text) =>
    editGrubDefault(body, key, ["console=ttyS0", "numa=off"]);
  expect(edit("GRUB_CMDLINE_LINUX_DEFAULT")).toBe(
    text.replace("quiet splash", "quiet splash console=ttyS0 numa=off"),
  );
  expect(edit("GRUB_CMDLINE_LINUX")).toBe(
    text.replace('LINUX=""', 'LINUX="console=ttyS0 numa=off"'),
  );
  const once = edit("GRUB_CMDLINE_LINUX_DEFAULT")!;
  expect(edit("GRUB_CMDLINE_LINUX_DEFAULT", once)).toBe(once);
  expect(edit("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX=quiet\n")).toBe(
    'GRUB_CMDLINE_LINUX="quiet console=ttyS0 numa=off"\n',
  );
  expect(edit("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX='a b'\n")).toBe(
    "GRUB_CMDLINE_LINUX='a b console=ttyS0 numa=off'\n",
  );
  for (const strange of [
    "",
    "GRUB_CMDLINE_LINUX=`cat /x`\n",
    'GRUB_CMDLINE_LINUX="a"b"\n',
    'GRUB_CMDLINE_LINUX="a\n',
  ])
    expect(edit("GRUB_CMDLINE_LINUX", strange)).toBeUndefined();
  expect(missingOptions("console=ttyS0,9600", ["console=ttyS0,115200n8"])).toEqual([]);
});

test("system.md CON-01: GRUB 1 gets the options of its time on every kernel line, newer loaders those of current images", () => {
  expect(consoleOptions("x86_64", "2.6.32", "grub1")).toEqual([
    "console=ttyS0",
    "earlyprintk=ttyS0",
    "numa=off",
  ]);
  expect(consoleOptions("x86_64", "6.1.0", "grub2").join(" ")).toBe(CONSOLE);
  expect(consoleOptions("aarch64", "6.1.0", "grub2").join(" ")).toBe(
    "console=tty1 console=ttyAMA0,115200n8 earlycon=pl011,0xeffec000",
  );
  expect(editMenuLst("title x\n\tkernel /vmlinuz ro\n\tinitrd /i\n", ["console=ttyS0"])).toBe(
    "title x\n\tkernel /vmlinuz ro console=ttyS0\n\tinitrd /i\n",
  );
  using system = createFakeSystem();
  plant(system, { "/boot/grub/menu.lst": "default 0\nkernel /vmlinuz ro\n" });
  const plan = planSerialConsole(
    system,
    { bootOptions: "grub1" },
    { ...machine, kernelRelease: "3.0.1" },
  );
  expect(plan.loader).toBe("grub1");
  expect(plan.edits[0]?.after).toBe(
    "default 0\nkernel /vmlinuz ro console=ttyS0 earlyprintk=ttyS0\n",
  );
});

test("system.md BET-32: GRUB 2 is changed by a drop-in where there is a folder for it; a dry run changes nothing", async () => {
  using system = createFakeSystem();
  plant(system, {
    "/etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n',
    "/etc/default/grub.d/50-cloud.cfg": 'GRUB_CMDLINE_LINUX="console=tty1"\n',
  });
  system.programs.set("update-grub", () => undefined);
  const plan = planSerialConsole(system, grub, machine);
  expect(describeBootPlan(plan)).toBe(`Boot loader: grub2
Options: ${CONSOLE}
Makes /etc/default/grub.d/90-waagent.cfg:
  # Written by the Azure VM agent (waagent -serialconsole).
  GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT console=ttyS0,115200n8 earlyprintk=ttyS0,115200"
Runs update-grub
`);
  expect(system.files.list("/etc/default/grub.d")).toEqual(["50-cloud.cfg"]);
  await applyBootPlan(system, plan);
  expect(system.files.readText("/etc/default/grub")).not.toContain("ttyS0");
  expect(system.files.exists("/etc/default/grub.d/90-waagent.cfg")).toBe(true);
  expect(system.commands).toEqual([["update-grub"]]);
  await applyBootPlan(system, planSerialConsole(system, grub, machine));
  expect(system.files.list("/etc/default/grub.d")).toEqual(["50-cloud.cfg", "90-waagent.cfg"]);
});

test("system.md CON-01 BET-32: GRUB 2 without drop-ins and boot loader entries are edited with a backup, and put back when the loader's program fails", async () => {
  using system = createFakeSystem();
  const before = 'GRUB_CMDLINE_LINUX="rhgb quiet"\n';
  const entry = "title RHEL\nlinux /vmlinuz\noptions root=/dev/sda1 ro\n";
  plant(system, {
    "/etc/default/grub": before,
    "/boot/grub2/grub.cfg": "",
    "/boot/loader/entries/a.conf": entry,
    "/boot/loader/entries/b.conf": "title x\noptions $kernelopts\n",
    "/etc/kernel/cmdline": "root=/dev/sda1 ro\n",
  });
  system.programs.set("grub2-mkconfig", () => ({ code: 1, stderr: "No space left" }));
  const plan = planSerialConsole(system, grub, machine);
  await expect(applyBootPlan(system, plan)).rejects.toThrow(/were not changed.*No space left/);
  expect(system.files.readText("/etc/default/grub")).toBe(before);
  expect(system.files.readText("/boot/loader/entries/a.conf")).toBe(entry);

  system.programs.set("grub2-mkconfig", () => undefined);
  await applyBootPlan(system, planSerialConsole(system, grub, machine));
  expect(system.files.readText("/etc/default/grub")).toBe(
    `GRUB_CMDLINE_LINUX="rhgb quiet ${CONSOLE}"\n`,
  );
  expect(system.files.readText("/boot/loader/entries/a.conf")).toContain(`ro ${CONSOLE}\n`);
  expect(system.files.readText("/boot/loader/entries/b.conf")).not.toContain("ttyS0");
  expect(system.files.readText("/etc/kernel/cmdline")).toBe(`root=/dev/sda1 ro ${CONSOLE}\n`);
  expect(system.files.readText("/etc/default/grub.waagent-backup")).toBe(before);
  expect(system.commands.at(-1)).toEqual(["grub2-mkconfig", "-o", "/boot/grub2/grub.cfg"]);
});

test("system.md BET-32: without a loader that we know, or with files of unknown shape, it says so and changes nothing", () => {
  using system = createFakeSystem();
  expect(() => planSerialConsole(system, { bootOptions: "none" }, machine)).toThrow(
    /No boot loader is found whose kernel options can be changed here/,
  );
  plant(system, { "/etc/default/grub": "GRUB_CMDLINE_LINUX=$(cat /x)\n" });
  expect(() => planSerialConsole(system, grub, machine)).toThrow(/cannot|can be edited safely/);
  plant(system, { "/etc/default/grub": 'GRUB_CMDLINE_LINUX=""\n' });
  expect(() => planSerialConsole(system, grub, machine)).toThrow(/neither update-grub nor/);
  using other = createFakeSystem();
  plant(other, { "/boot/grub/menu.lst": "default 0\n" });
  expect(() => planSerialConsole(other, { bootOptions: "grub1" }, machine)).toThrow(
    /no kernel line/,
  );
});
