import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { buildDeb } from "../../packaging/deb.ts";
import { binary } from "../support/binary.ts";
import { missing } from "../support/skip.ts";
import { canSandbox } from "../e2e/sandbox.ts";

/** What a small Debian server on Azure has; systemd-networkd is its DHCP client. */
const PACKAGES = [
  "systemd-sysv",
  "dbus",
  "libpam-systemd",
  "openssh-server",
  "openssl",
  "ca-certificates",
  "sudo",
  "passwd",
  "procps",
  "iproute2",
  "iptables",
  "nftables",
  "parted",
  "fdisk",
  "e2fsprogs",
  "logrotate",
  // The DHCP client of older images; not used unless a test asks for it.
  "isc-dhcp-client",
  "ifupdown",
  // Debian's own agent, which ours takes the place of.
  "python3",
  "python3-distro",
  "python3-setuptools",
];

/** Of no use to a test, or an obstacle: timers, and what waits for udev, which no container has. */
const MASKED = [
  "apt-daily.timer",
  "apt-daily-upgrade.timer",
  "dpkg-db-backup.timer",
  "e2scrub_all.timer",
  "e2scrub_reap.service",
  "fstrim.timer",
  "logrotate.timer",
  "systemd-timesyncd.service",
  "systemd-udevd.service",
  "getty@tty1.service",
  "console-getty.service",
  "systemd-networkd-wait-online.service",
];

/** Files of every machine, before any package of ours. */
const FILES: Readonly<Record<string, string>> = {
  "/etc/hostname": "unnamed\n",
  // A value: an empty one makes systemd enable every unit at the first boot.
  "/etc/machine-id": "5f0c2b7d9e3146a8b1d4c6e8f0a21357\n",
  "/etc/resolv.conf": "nameserver 10.0.0.1\noptions timeout:1 attempts:1\n",
  "/etc/systemd/network/10-eth0.network":
    "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n\n[DHCPv4]\nUseDNS=no\nUseDomains=no\n",
  // Without udev networkd does not know when a link is ready, so the address is what is waited for.
  "/etc/systemd/system/online.service":
    "[Unit]\nDescription=Waits for an address\nAfter=systemd-networkd.service\nBefore=network-online.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=30\nExecStart=/bin/sh -c 'until ip -4 addr show eth0 | grep -q inet; do sleep 0.1; done'\n\n[Install]\nWantedBy=network-online.target\n",
  "/etc/systemd/journald.conf.d/test.conf":
    "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n",
};

const PROJECT = path.resolve(import.meta.dir, "../..");
const APT_SOURCES = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/**
 * Why no booted machine can be had here; undefined when one can. Makes the image when it is missing, so ask when the
 * file is loaded: no test's limit runs then.
 */
export function bootProblem(): string | undefined {
  const problem = hostProblem();
  if (problem !== undefined || fs.existsSync(rootDirectory())) return problem;
  const note = path.join(PROJECT, "dist/boot-image-problem");
  // Of the same run: every file of tests asks, and finding out may take minutes.
  if (fs.existsSync(note) && Date.now() - fs.statSync(note).mtimeMs < NOTE_MS)
    return fs.readFileSync(note, "utf8");
  try {
    baseImage();
    return undefined;
  } catch (error) {
    const lastLine = (error as Error).message.trim().split("\n").at(-1) ?? "";
    fs.mkdirSync(path.dirname(note), { recursive: true });
    fs.writeFileSync(note, `the image of a small Debian could not be made: ${lastLine}`);
    return fs.readFileSync(note, "utf8");
  }
}

const NOTE_MS = 10 * 60_000;

/** An overlay, for one, cannot: the machines' disks are layers below `dist`. Mounted in a namespace of its own. */
function canOverlay(directory: string): boolean {
  fs.mkdirSync(directory, { recursive: true });
  const probe = fs.mkdtempSync(path.join(directory, "overlay-probe-"));
  for (const name of ["lower", "upper", "work", "root"]) fs.mkdirSync(path.join(probe, name));
  const layers = `lowerdir=${probe}/lower,upperdir=${probe}/upper,workdir=${probe}/work`;
  try {
    host([
      "unshare",
      "--mount",
      "mount",
      "-t",
      "overlay",
      "-o",
      layers,
      "overlay",
      `${probe}/root`,
    ]);
    return true;
  } catch {
    return false; // the caller says what follows from it
  } finally {
    fs.rmSync(probe, { recursive: true, force: true });
  }
}

function hostProblem(): string | undefined {
  const able = canSandbox();
  if (!able.ok) return able.reason;
  const lacking = missing({
    root: true,
    programs: ["systemd-nspawn", "dpkg-deb", "losetup", "mke2fs"],
  });
  if (lacking !== undefined) return lacking;
  try {
    for (const hierarchy of hierarchies()) {
      const probe = path.join(hierarchy, `machine-probe-${process.pid}`);
      fs.mkdirSync(probe);
      fs.rmdirSync(probe);
    }
    host(["losetup", "--find"]);
  } catch (error) {
    return `this machine does not give control groups and loop devices: ${(error as Error).message}`;
  }
  if (!canOverlay(path.join(PROJECT, "dist")))
    return "the project lies on a file system that cannot hold the upper layer of an overlay";
  if (fs.existsSync(rootDirectory())) return undefined;
  if (aptSources() === undefined) return "this is no Debian that an image could be made of";
  return missing({ programs: ["mmdebstrap"] });
}

/** Where systemd makes groups: one hierarchy of version 2, or the hybrid pair. */
export function hierarchies(): string[] {
  const mount = "/sys/fs/cgroup";
  if (fs.existsSync(`${mount}/cgroup.controllers`)) return [mount];
  return [`${mount}/unified`, `${mount}/systemd`];
}

function aptSources(): string | undefined {
  const release = fs.existsSync("/etc/os-release")
    ? fs.readFileSync("/etc/os-release", "utf8")
    : "";
  if (!/^ID=debian$/m.test(release)) return undefined;
  return APT_SOURCES.find(
    (file) => fs.existsSync(file) && /debian/.test(fs.readFileSync(file, "utf8")),
  );
}

function suite(): string {
  const release = fs.readFileSync("/etc/os-release", "utf8");
  return /^VERSION_CODENAME=(\S+)$/m.exec(release)?.[1] ?? "stable";
}

function rootDirectory(): string {
  const inputs = JSON.stringify([PACKAGES, MASKED, FILES]);
  const digest = createHash("sha256").update(inputs).digest("hex").slice(0, 16);
  return path.join(PROJECT, ".cache/boot", digest);
}

/**
 * Folder of a small Debian, made once (about 40 s) and kept in `.cache/boot`; nothing is ever written to it. Errors:
 * what mmdebstrap said.
 */
export function baseImage(): string {
  const root = rootDirectory();
  if (fs.existsSync(root)) return root;
  const parent = path.dirname(root);
  // Of other lists of packages; half-made ones too.
  fs.rmSync(parent, { recursive: true, force: true });
  fs.mkdirSync(parent, { recursive: true });
  const work = `${root}.new`;
  const sources = aptSources();
  if (sources === undefined) throw new Error("There is no list of Debian's package sources here");
  host([
    "mmdebstrap",
    "--quiet",
    "--variant=minbase",
    "--mode=root",
    `--include=${PACKAGES.join(",")}`,
    '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    ...["man", "doc", "locale", "info"].map(
      (name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`,
    ),
    "--dpkgopt=force-unsafe-io",
    suite(),
    work,
    sources,
  ]);
  fs.rmSync(path.join(work, "etc/resolv.conf"), { force: true });
  writeTree(work, FILES);
  for (const unit of MASKED) link(work, `/etc/systemd/system/${unit}`, "/dev/null");
  const enabled = {
    "multi-user.target": "ssh systemd-networkd",
    "network-online.target": "online",
  };
  for (const [target, names] of Object.entries(enabled)) {
    for (const name of names.split(" ")) {
      const file = [`/etc/systemd/system/${name}.service`, `/lib/systemd/system/${name}.service`];
      const real = file.find((one) => fs.existsSync(work + one)) ?? "";
      link(work, `/etc/systemd/system/${target}.wants/${name}.service`, real);
    }
  }
  link(work, "/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target");
  // Keys of the image would be everybody's.
  for (const name of fs.readdirSync(path.join(work, "etc/ssh")))
    if (name.startsWith("ssh_host_")) fs.rmSync(path.join(work, "etc/ssh", name));
  fs.renameSync(work, root);
  return root;
}

/** A folder that lies over the base image; nothing is written to it any more. */
export interface Layer {
  readonly path: string;
}

/** The base image with our package installed, the compiled agent in it; made once for every state of the sources. */
export async function agentLayer(): Promise<Layer> {
  const executable = await binary();
  const inputs = [fs.readFileSync(`${executable}.inputs`), baseImage()];
  for (const name of fs.readdirSync(path.join(PROJECT, "packaging"), { recursive: true })) {
    const file = path.join(PROJECT, "packaging", String(name));
    if (fs.statSync(file).isFile()) inputs.push(fs.readFileSync(file));
  }
  const hash = createHash("sha256");
  for (const input of inputs) hash.update(input);
  const folder = path.join(scratchParent(), `agent-${hash.digest("hex").slice(0, 16)}`);
  if (!fs.existsSync(folder)) {
    for (const old of fs.readdirSync(scratchParent()).filter((name) => name.startsWith("agent-")))
      fs.rmSync(path.join(scratchParent(), old), { recursive: true, force: true });
    const work = `${folder}.new`;
    fs.mkdirSync(work);
    const deb = agentPackage(work, fs.readFileSync(executable));
    fs.renameSync(deb, path.join(work, PACKAGE));
    install(work, path.join(work, PACKAGE));
    fs.renameSync(work, folder);
  }
  return { path: path.join(folder, "upper") };
}

/** Our package file that `agentLayer` installed. */
export function packageFileOf(layer: Layer): string {
  return path.join(path.dirname(layer.path), PACKAGE);
}

/** Copies package files into a running machine: `/opt/packages/NAME`. */
export function carry(
  machine: { pid(): number },
  packages: Readonly<Record<string, string>>,
): void {
  const folder = `/proc/${machine.pid()}/root/opt/packages`;
  fs.mkdirSync(folder, { recursive: true });
  for (const [name, file] of Object.entries(packages))
    fs.copyFileSync(file, path.join(folder, name));
}

/** The base image with another package installed. */
export function otherLayer(deb: string): Layer & Disposable {
  const folder = fs.mkdtempSync(path.join(scratchParent(), "layer-"));
  const dispose = () => fs.rmSync(folder, { recursive: true, force: true });
  try {
    install(folder, deb);
  } catch (error) {
    dispose();
    throw error;
  }
  return { path: path.join(folder, "upper"), [Symbol.dispose]: dispose };
}

const PACKAGE = "package.deb";

function agentPackage(out: string, executable: Uint8Array): string {
  const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-boot-deb-"));
  try {
    return buildDeb(path.join(work, "tree"), {
      architecture: process.arch === "arm64" ? "arm64" : "x64",
      executable,
      out,
      compression: "fast",
    });
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/** What `dpkg -i` of the package adds to the base image, as when a person makes an image. */
function install(folder: string, deb: string): void {
  for (const name of ["upper", "work", "root"]) fs.mkdirSync(path.join(folder, name));
  fs.chmodSync(path.join(folder, "upper"), 0o755);
  host([
    ...["unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec"],
    `mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
     mount -t proc proc "$2/root/proc"
     mount --bind /dev "$2/root/dev"
     mount -t tmpfs tmpfs "$2/root/run"
     cp "$3" "$2/root/run/package.deb"
     chroot "$2/root" dpkg --force-unsafe-io -i /run/package.deb`,
    ...["sh", baseImage(), folder, deb],
  ]);
}

/** On the same file system as the image: an overlay cannot lie on another overlay. */
export function scratchParent(): string {
  const folder = path.join(PROJECT, "dist/boot");
  fs.mkdirSync(folder, { recursive: true });
  return folder;
}

export function writeTree(root: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(root + name), { recursive: true });
    fs.writeFileSync(root + name, text);
  }
}

export function link(root: string, name: string, target: string): void {
  fs.mkdirSync(path.dirname(root + name), { recursive: true });
  fs.rmSync(root + name, { force: true });
  fs.symlinkSync(target, root + name);
}

/** Runs a program of this machine. Errors: plain Error with its last words. */
export function host(argv: readonly string[]): string {
  const done = Bun.spawnSync([...argv], {
    env: { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
  });
  if (done.exitCode !== 0) {
    const said = `${done.stdout.toString()}${done.stderr.toString()}`.trim().slice(-2000);
    throw new Error(`${argv[0]} failed with exit code ${done.exitCode}: ${said}`);
  }
  return done.stdout.toString();
}
