import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { isEvent, type Fabric, type FabricEvent } from "../fabric/fabric.ts";
import { ovfDocument } from "../fabric/ovf.ts";
import type { Scenario } from "../fabric/scenario.ts";
import type { UntilOptions } from "../e2e/guest.ts";
import { startHost } from "../e2e/host.ts";
import {
  BLOB_HOSTS,
  createPlace,
  createSandbox,
  isAlive,
  type Place,
  type Sandbox,
} from "../e2e/sandbox.ts";
import {
  baseImage,
  hierarchies,
  host,
  link,
  scratchParent,
  writeTree,
  type Layer,
} from "./image.ts";

/**
 * A machine that has booted: systemd as process 1, journald, networkd, sshd, units and slices, with the agent as its
 * package installs it, and the emulated host at the other end of its cable. Not real are the kernel (this machine's),
 * udev, control group controllers, partition tables, and the DVD's file system.
 */
export interface Machine
  extends
    Place,
    Pick<Sandbox, "scratch" | "platform" | "read" | "exists" | "write">,
    AsyncDisposable {
  readonly fabric: Fabric;
  /** Process 1 of this boot, as the host sees it; its root is the machine's. */
  pid(): number;
  /** Resolves with the event, past or coming, that a scenario would name so. Errors: with the agent's last words. */
  until(name: string, options?: UntilOptions): Promise<FabricEvent>;
  /** Milliseconds on the fabric's clock. */
  now(): number;
  /** Boots again with the same disks; resolves when it is up again. */
  reboot(): Promise<void>;
  /** Resolves when the machine is up again after a reboot that somebody in it asked for. */
  rebooted(): Promise<void>;
  /** What the journal has of this boot, oldest first. */
  journal(unit?: string): Promise<JournalLine[]>;
  /** One property of a unit. */
  show(unit: string, property: string): Promise<string>;
}

export interface JournalLine {
  /** Microseconds since boot. */
  readonly monotonic: number;
  readonly unit: string;
  readonly message: string;
}

export interface MachineOptions {
  /** Over the base image, e.g. with the agent's package installed. */
  readonly layers: readonly Layer[];
  /** Lines for the end of waagent.conf; the last of equal keys counts. */
  readonly configuration?: string;
  /** A temporary disk, as the platform partitions it, on a virtual machine of that generation. */
  readonly resourceDisk?: { readonly generation: 1 | 2; readonly mib: number };
  /** Further files of the machine. */
  readonly files?: Readonly<Record<string, string>>;
  /** Who gets the address. Default systemd-networkd. */
  readonly dhcpClient?: "networkd" | "dhclient";
  readonly onEvent?: (event: FabricEvent) => void;
}

/** Short periods, and nothing that a test has not asked for. */
const CONFIGURATION = `
Extensions.GoalStatePeriod=1
Extensions.InitialGoalStatePeriod=1
Provisioning.SshHostKeyPairType=ed25519
Provisioning.MonitorHostName=n
ResourceDisk.Format=n
AutoUpdate.Enabled=n
Logs.Collect=n
`;

/** This is no Hyper-V. Taking one condition back takes all of them back, so the others are given again. */
const CONDITIONS = `[Unit]
ConditionVirtualization=
ConditionFileIsExecutable=/usr/sbin/waagent
ConditionPathExists=/etc/waagent.conf
`;

/** Device nodes and VMBus, which udev and the kernel would make. Bind-mounted nodes would look mounted. */
const DEVICES_SERVICE = `[Unit]
Description=Devices of the test machine
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target network-pre.target waagent.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -eu /usr/local/lib/test-devices
`;
const DEVICES = `[ ! -e /etc/test-devices ] ||
    while read -r name major minor; do mknod -m 660 "/dev/$name" b "$major" "$minor"; done </etc/test-devices
[ -e /etc/test-vmbus ] || exit 0
bus=/run/test-bus
mkdir $bus
mount -t tmpfs -o mode=755 tmpfs $bus
for real in /sys/bus/*; do mkdir "$bus/\${real##*/}"; mount --bind "$real" "$bus/\${real##*/}"; done
device() {
    mkdir -p "$bus/vmbus/devices/$1/$3"
    echo "{$1}" >"$bus/vmbus/devices/$1/device_id"
    echo "{$2}" >"$bus/vmbus/devices/$1/class_id"
}
ide=32412632-86cb-44a2-9b5c-50d1417354f5 scsi=ba6163d9-04a1-4d29-b605-72e2ffb1dc7f
resource=$(cat /etc/test-resource)
case $(cat /etc/test-vmbus) in
1)
    device 00000000-0000-8899-0000-000000000000 $ide host0/target0:0:0/0:0:0:0/block/sda
    device 00000000-0001-8899-0000-000000000000 $ide host1/target1:0:1/1:0:1:0/block/$resource
    ;;
2)
    for disk in 0/block/sda 1/block/$resource 2/block/sr0; do
        device f8b3781a-1e82-4818-a1c3-63d806ec15bb $scsi "host0/target0:0:0/0:0:0:$disk"
    done
    ;;
esac
mount --rbind $bus /sys/bus
`;

/** The kernel has no file system for DVDs: the image is ext4, and the program that would mount UDF mounts it. */
const MOUNT_UDF = `#!/bin/sh
exec /bin/mount -i -t ext4 -o ro,noload "$1" "$2"
`;

const BOOT_MS = 40_000;
const END_MS = 15_000;

/** Errors: plain Error with the console's or the helper's words when the machine does not come up. */
export async function bootMachine(scenario: Scenario, options: MachineOptions): Promise<Machine> {
  await using cleanup = new AsyncDisposableStack();
  const sandbox = cleanup.use(await createSandbox({ network: "pair", guestAddress: false }));
  const folder = mkdtempSync(path.join(scratchParent(), "machine-"));
  let isHeld = false;
  cleanup.defer(() => {
    if (!isHeld) rmSync(folder, { recursive: true, force: true });
  });
  const lower = [...options.layers.map((layer) => layer.path).toReversed(), baseImage()];
  const upper = path.join(folder, "upper");
  for (const name of ["upper", "work", "root"]) mkdirSync(path.join(folder, name), { mode: 0o755 });

  const fabric = cleanup.use(
    await startHost(sandbox, scenario, {
      trusted: false,
      ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
    }),
  );
  const below = (file: string): string => {
    const found = [upper, ...lower].find((layer) => existsSync(layer + file));
    return found === undefined ? "" : readFileSync(found + file, "utf8");
  };
  writeTree(upper, {
    ...files(below, options),
    ...(scenario.storage === "https" ? trust(below, fabric.authority, sandbox) : {}),
    ...options.files,
  });
  Bun.spawnSync(["chmod", "755", `${upper}/usr/sbin/mount.udf`, `${upper}/usr/local/sbin/eject`]);
  if (options.dhcpClient === "dhclient") {
    link(upper, "/etc/systemd/system/systemd-networkd.service", "/dev/null");
    writeTree(upper, {
      "/etc/network/interfaces":
        "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n",
    });
  }
  link(
    upper,
    "/etc/systemd/system/sysinit.target.wants/test-devices.service",
    "../test-devices.service",
  );
  writeFileSync(path.join(folder, "disks"), disks(folder, scenario, options));

  const name = path
    .basename(folder)
    .replace(/[^\w-]/g, "x")
    .toLowerCase();
  const pipe = path.join(folder, "alive");
  host(["mkfifo", pipe]);
  // Open for both, as opening for writing only would wait for the reader.
  const alive = openSync(pipe, "r+");
  cleanup.defer(async () => {
    closeSync(alive);
    for (const began = performance.now(); existsSync(folder); await Bun.sleep(20))
      if (performance.now() - began > END_MS) throw new Error(`${folder} was not cleaned up`);
  });
  // No child of ours: Bun kills those of a test that runs out of time, and this one has to clean up then.
  // In another folder than the one that goes with the machine.
  const helperLog = path.join(sandbox.scratch, "machine-init");
  const helper = openSync(helperLog, "w");
  isHeld = true;
  Bun.spawnSync(
    [
      ...["setsid", "--fork", "unshare", "--mount", "--propagation", "private", "/bin/sh"],
      path.join(import.meta.dir, "machine-init.sh"),
      folder,
      lower.join(":"),
      `/proc/${sandbox.pid}/ns/net`,
      name,
      hierarchies().join(" "),
    ],
    {
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
      stdin: "ignore",
      stdout: helper,
      stderr: helper,
    },
  );
  closeSync(helper);

  const text = (file: string): string => {
    const real = path.join(folder, file);
    return existsSync(real) ? readFileSync(real, "utf8") : "";
  };
  const fail = (what: string): never => {
    const helperText = readFileSync(helperLog, "utf8");
    throw new Error(`${what}\n${helperText}${text("console").slice(-3000)}`);
  };
  /** Process 1 of the boot with that number, once it is there. */
  const bootNumber = async (number: number): Promise<number> => {
    for (
      const began = performance.now();
      performance.now() - began < BOOT_MS;
      await Bun.sleep(20)
    ) {
      if (!existsSync(folder)) fail("The machine could not be started");
      const nspawn = text("boots").split("\n")[number];
      if (nspawn === "ended") fail("The machine ended");
      const leader = nspawn === undefined ? undefined : leaderOf(nspawn);
      if (leader !== undefined) return leader;
    }
    return fail("The machine did not boot");
  };

  let boots = 0;
  let leader = 0;
  let inside: Place = sandbox;
  const up = async (): Promise<void> => {
    leader = await bootNumber(boots);
    boots += 1;
    inside = createPlace(sandbox.scratch, [
      ...["nsenter", "-t", `${leader}`, "-m", "-n", "-p", "-u", "-i", "-C", "-r", "-w", "--"],
    ]);
    for (
      const began = performance.now();
      performance.now() - began < BOOT_MS;
      await Bun.sleep(50)
    ) {
      const asked = await inside.run(["systemctl", "is-system-running"], { allowFailure: true });
      if (/^(running|degraded)$/m.test(asked.stdout)) return;
      if (!isAlive(leader)) break;
    }
    fail("The machine did not come up");
  };
  await up();
  const root = (): string => `/proc/${leader}/root`;
  const run: Place["run"] = (argv, given) => inside.run(argv, given);
  const journal: Machine["journal"] = async (unit) => {
    const about = unit === undefined ? [] : ["-u", unit];
    const { stdout } = await run(["journalctl", "-b", "--no-pager", "-o", "json", ...about]);
    return stdout.trim().split("\n").filter(Boolean).map(journalLine);
  };
  const kept = cleanup.move();
  return {
    run,
    spawn: (argv, given) => inside.spawn(argv, given),
    scratch: sandbox.scratch,
    platform: sandbox.platform,
    fabric,
    pid: () => leader,
    read: (file) => readFileSync(root() + file, "utf8"),
    exists: (file) => existsSync(root() + file),
    write: (file, content, mode = 0o644) => {
      mkdirSync(path.dirname(root() + file), { recursive: true });
      rmSync(root() + file, { force: true });
      writeFileSync(root() + file, content, { mode });
    },
    now: () => Date.now() - fabric.startedAt,
    until: async (event, { timeoutMs = 30_000, after = 0 } = {}) => {
      try {
        return await fabric.waitFor(
          (one) => one.at >= after && isEvent(one, event),
          timeoutMs,
          event,
        );
      } catch (error) {
        const log = await run(["tail", "-n", "60", "/var/log/waagent.log"], { allowFailure: true });
        throw new Error(
          `${(error as Error).message}\n${log.stdout}${text("console").slice(-1000)}`,
        );
      }
    },
    reboot: async () => {
      await run(["systemctl", "reboot"], { allowFailure: true });
      await up();
    },
    rebooted: up,
    journal,
    show: async (unit, property) =>
      (await run(["systemctl", "show", unit, "-p", property, "--value"])).stdout.trim(),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function files(
  below: (file: string) => string,
  options: MachineOptions,
): Readonly<Record<string, string>> {
  const names = Object.entries(BLOB_HOSTS).map(([name, address]) => `${address} ${name}\n`);
  const configuration = below("/etc/waagent.conf");
  return {
    "/etc/hosts": `127.0.0.1 localhost\n${names.join("")}`,
    "/etc/waagent.conf": `${configuration}${CONFIGURATION}${options.configuration ?? ""}`,
    "/etc/systemd/system/waagent.service.d/test.conf": CONDITIONS,
    // Debian's own.
    "/etc/systemd/system/walinuxagent.service.d/test.conf": CONDITIONS,
    "/etc/systemd/system/test-devices.service": DEVICES_SERVICE,
    "/usr/local/lib/test-devices": DEVICES,
    "/usr/sbin/mount.udf": MOUNT_UDF,
    "/usr/local/sbin/eject": "#!/bin/sh\nexit 0\n",
    ...(options.resourceDisk === undefined
      ? {}
      : { "/etc/test-vmbus": `${options.resourceDisk.generation}\n` }),
  };
}

/** The machine's store of roots trusts the storage, as it does the public one. */
function trust(
  below: (file: string) => string,
  authority: string,
  sandbox: Pick<Sandbox, "scratch">,
): Readonly<Record<string, string>> {
  const file = path.join(sandbox.scratch, "authority.pem");
  writeFileSync(file, authority);
  const hash = host(["openssl", "x509", "-noout", "-hash", "-in", file]).trim();
  const bundle = "/etc/ssl/certs/ca-certificates.crt";
  return { [bundle]: below(bundle) + authority, [`/etc/ssl/certs/${hash}.0`]: authority };
}

/** Images of the DVD and of the temporary disk, and the lines about them for `machine-init.sh`. */
function disks(folder: string, scenario: Scenario, options: MachineOptions): string {
  const lines: string[] = [];
  if (scenario.provisioning !== undefined) {
    const media = path.join(folder, "media");
    writeTree(media, { "/ovf-env.xml": ovfDocument(scenario.provisioning) });
    const image = path.join(folder, "dvd");
    host(["truncate", "-s", "4M", image]);
    host([
      ...["mke2fs", "-q", "-t", "ext4", "-F", "-O", "^has_journal", "-L", "rd_rdfe_stable"],
      ...["-d", media, image],
    ]);
    lines.push(`dvd ${image}`);
  }
  if (options.resourceDisk !== undefined) {
    const { mib } = options.resourceDisk;
    const image = path.join(folder, "resource");
    host(["truncate", "-s", `${mib}M`, image]);
    const table = path.join(folder, "table");
    writeFileSync(
      table,
      `label: gpt\nstart=2048, size=${(mib - 2) * 2048}, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n`,
    );
    host(["sh", "-c", 'sfdisk -q "$1" <"$2"', "sh", image, table]);
    // As the platform hands it over: NTFS with its own label.
    const partition = path.join(folder, "partition");
    host(["truncate", "-s", `${mib - 2}M`, partition]);
    host(["mkntfs", "-q", "-F", "-Q", "-s", "512", "-L", "Temporary Storage", partition]);
    host(["dd", `if=${partition}`, `of=${image}`, "bs=1M", "seek=1", "conv=notrunc,sparse"]);
    rmSync(partition);
    lines.push(`resource ${image}`);
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** The container's process 1, a child of systemd-nspawn that is 1 in its own namespace. */
function leaderOf(nspawn: string): number | undefined {
  try {
    const children = readFileSync(`/proc/${nspawn}/task/${nspawn}/children`, "utf8");
    return children
      .split(" ")
      .filter(Boolean)
      .map(Number)
      .find((pid) => {
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        return /^NSpid:.*\t1$/m.test(status) && /^Name:\tsystemd$/m.test(status);
      });
  } catch {
    return undefined; // it has just ended
  }
}

function journalLine(text: string): JournalLine {
  const entry = JSON.parse(text) as Record<string, unknown>;
  const message = entry["MESSAGE"];
  return {
    monotonic: Number(entry["__MONOTONIC_TIMESTAMP"]),
    unit: String(entry["UNIT"] ?? entry["_SYSTEMD_UNIT"] ?? ""),
    // Bytes that are no plain text come as numbers.
    message: Array.isArray(message)
      ? Buffer.from(message as number[]).toString("utf8")
      : String(message ?? ""),
  };
}
