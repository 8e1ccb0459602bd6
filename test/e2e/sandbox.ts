import {
  existsSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
} from "node:fs";
import { lstatSync, mkdirSync, writeFileSync, type Stats } from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import path from "node:path";
import { errnoOf } from "../../src/base/error.ts";

/**
 * A throw-away machine: private mount, network, pid, uts and ipc namespaces over an overlay of this machine's own
 * root filesystem. Everything in it is real (useradd, sshd, openssl, ip, nft) but systemd, udev and disks.
 * Nothing is mounted in the machine's own namespace, and all of it ends with the process that made it.
 */
export interface SandboxOptions {
  /** "pair": a guest and a platform network namespace, joined by a cable. "none": loopback only. Default "none". */
  readonly network?: "none" | "pair";
  /** Only with "pair". false: the guest's interface is up but has no address, so that DHCP can be tested. Default true. */
  readonly guestAddress?: boolean;
  /** Host files or folders that the guest sees, read-only unless `writable`. The target is made when missing. */
  readonly binds?: readonly {
    readonly from: string;
    readonly to: string;
    readonly writable?: boolean;
  }[];
  /** Name of the guest at start. Default "localhost". */
  readonly hostname?: string;
}

export interface RunOptions {
  readonly stdin?: string | Uint8Array;
  /** Default 60 s; then the process group is killed and the call fails. */
  readonly timeoutMs?: number;
  /** Added to PATH, HOME and LC_ALL; nothing is inherited. */
  readonly env?: Readonly<Record<string, string>>;
  /** true: a non-zero exit code is returned instead of thrown. */
  readonly allowFailure?: boolean;
  readonly cwd?: string;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface SandboxProcess {
  /** Pid as this machine sees it, of the helper that entered the namespaces; also the process group. */
  readonly pid: number;
  readonly exited: Promise<number>;
  /** Everything written so far to standard output and standard error, in order. */
  output(): string;
  /** Sends a signal to the program itself, not to its children. */
  signal(signal: NodeJS.Signals): void;
  /** SIGKILL for the whole process group. */
  kill(): Promise<void>;
}

export interface Place {
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  spawn(argv: readonly string[], options?: Pick<RunOptions, "env" | "cwd">): SandboxProcess;
}

export interface Change {
  readonly path: string;
  readonly kind: "file" | "directory" | "link" | "deleted" | "other";
  /** Permission bits, e.g. 0o600; 0 for deleted. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** SHA-256 of a file's content, target of a link, "" otherwise. */
  readonly content: string;
}

export interface Sandbox extends Place, AsyncDisposable {
  /** Host pid of the guest's process 1; its /proc/PID/ns has all namespaces. */
  readonly pid: number;
  /** Scratch folder on the host for sockets and logs that both sides need; removed at the end. */
  readonly scratch: string;
  /** What the guest wrote, as the overlay keeps it: host path. Owners and modes are real. */
  readonly upper: string;
  /** The guest's whole tree: host path. Beware of absolute links in it, they lead to the host's files. */
  readonly root: string;
  /** The other end of the cable: the machine's own files, but a network namespace that owns Azure's addresses. */
  readonly platform: Place;
  /** Every path that differs from the start, sorted. Deleted paths are included. */
  changes(): Change[];
  read(file: string): string;
  exists(file: string): boolean;
  /** Writes a guest file with the given mode, owned by root; parents are made. Default 0644. */
  write(file: string, content: string | Uint8Array, mode?: number): void;
}

export const PLATFORM_ADDRESSES = [
  "168.63.129.16/32",
  "169.254.169.254/32",
  "10.0.0.1/24",
  "10.90.0.10/32",
  "10.90.0.11/32",
];
export const GUEST_ADDRESS = "10.0.0.4";
export const GUEST_MAC = "00:0d:3a:11:22:33";
/** Names of the emulated storage accounts, resolved by the guest's /etc/hosts and by the platform's DNS. */
export const BLOB_HOSTS = {
  "stor1.blob.fabric.test": "10.90.0.10",
  "stor2.blob.fabric.test": "10.90.0.11",
};

const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const INIT = path.join(import.meta.dir, "sandbox-init.sh");
const NEEDED = {
  unshare: "util-linux",
  nsenter: "util-linux",
  mount: "mount",
  ip: "iproute2",
  pivot_root: "util-linux",
};

/** Whether this machine can make sandboxes; the reason is a sentence that says what is missing and how to get it. */
export function canSandbox(): { ok: true } | { ok: false; reason: string } {
  if (process.platform !== "linux") return { ok: false, reason: "Sandboxes need Linux namespaces" };
  if (process.getuid?.() !== 0)
    return { ok: false, reason: "Sandboxes need root (CAP_SYS_ADMIN): run as root or with sudo" };
  for (const [program, source] of Object.entries(NEEDED)) {
    if (Bun.which(program, { PATH }) === null)
      return { ok: false, reason: `The program ${program} is missing: apt-get install ${source}` };
  }
  // Loading the module needs the right to mount it, so ask the kernel itself rather than /proc/filesystems.
  const probe = Bun.spawnSync(
    [
      "unshare",
      "--mount",
      "--net",
      "--pid",
      "--uts",
      "--ipc",
      "--fork",
      "/bin/sh",
      "-ec",
      "mount -t tmpfs tmpfs /mnt; mkdir /mnt/u /mnt/w /mnt/m; mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/m",
    ],
    { env: { PATH, LC_ALL: "C" }, stdout: "ignore", stderr: "pipe" },
  );
  if (probe.exitCode === 0) return { ok: true };
  return {
    ok: false,
    reason: `This machine does not let us make namespaces with an overlay (a container needs --privileged): ${probe.stderr.toString().trim()}`,
  };
}

/** Errors: plain Error with the helper's own words when a namespace, mount or link cannot be made. */
export async function createSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const network = options.network ?? "none";
  const scratch = mkdtempSync(path.join(tmpdir(), "waagent-sandbox-"));
  const inner = path.join(scratch, "fs");
  mkdirSync(inner);
  const holder = Bun.spawn(
    ["unshare", "--mount", "--propagation", "private", "/bin/sh", INIT, "holder", inner, network],
    {
      env: { PATH, LC_ALL: "C", BINDS: bindLines(options.binds ?? []) },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      detached: true,
    },
  );
  let pids: ReadonlyMap<string, number> = new Map();
  let disposing: Promise<void> | undefined;
  const dispose = (): Promise<void> => (disposing ??= end());
  const end = async (): Promise<void> => {
    void holder.stdin.end();
    const killTimer = setTimeout(() => killGroup(holder.pid), 3000);
    await holder.exited;
    clearTimeout(killTimer);
    // The kernel ends the namespaces' processes a moment later.
    const patience = performance.now() + 3000;
    while ([...pids.values()].some(isAlive) && performance.now() < patience) await Bun.sleep(5);
    rmSync(scratch, { recursive: true, force: true });
  };

  try {
    pids = await announcedPids(holder, network === "pair" ? ["guest", "platform"] : ["guest"]);
    const guestPid = pids.get("guest")!;
    const platformPid = pids.get("platform");
    const guest = createPlace(scratch, [
      "nsenter",
      "-t",
      `${guestPid}`,
      "-m",
      "-n",
      "-p",
      "-u",
      "-i",
      "--",
    ]);
    const platform: Place =
      platformPid === undefined
        ? noPlatform
        : createPlace(scratch, ["nsenter", "-t", `${platformPid}`, "-n", "-p", "--"]);
    const upper = `/proc/${holder.pid}/root${inner}/upper`;
    const root = `/proc/${guestPid}/root`;
    const write = (file: string, content: string | Uint8Array, mode = 0o644): void => {
      mkdirSync(path.dirname(root + file), { recursive: true });
      rmSync(root + file, { force: true });
      writeFileSync(root + file, content, { mode });
    };

    if (platformPid !== undefined)
      await connect(
        createPlace(scratch, ["nsenter", "-t", `${platformPid}`, "-n", "--"]),
        guest,
        guestPid,
        options.guestAddress ?? true,
      );
    if (options.hostname !== undefined) await guest.run(["hostname", options.hostname]);
    // Nobody answers there, and says so at once: the machine's own name server would make each look-up hang.
    const nameServer = network === "pair" ? "10.0.0.1" : "127.0.0.1";
    write("/etc/resolv.conf", `nameserver ${nameServer}\noptions timeout:1 attempts:1\n`);
    if (network === "pair") {
      const names = Object.entries(BLOB_HOSTS).map(([name, address]) => `${address} ${name}\n`);
      write("/etc/hosts", `127.0.0.1 localhost\n${names.join("")}`);
    }
    const baseline = new Map(
      listUpper(upper).map((change) => [change.path, JSON.stringify(change)]),
    );
    return {
      ...guest,
      pid: guestPid,
      scratch,
      upper,
      root,
      platform,
      changes: () =>
        listUpper(upper).filter((change) => baseline.get(change.path) !== JSON.stringify(change)),
      read: (file) => readFileSync(root + file, "utf8"),
      exists: (file) => existsSync(root + file),
      write,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

const noPlatform: Place = {
  run: () =>
    Promise.reject(new Error('This sandbox has no platform side: make it with network: "pair"')),
  spawn: () => {
    throw new Error('This sandbox has no platform side: make it with network: "pair"');
  },
};

async function announcedPids(
  holder: Bun.Subprocess<"pipe", "pipe", "pipe">,
  wanted: readonly string[],
): Promise<Map<string, number>> {
  const pids = new Map<string, number>();
  let text = "";
  for await (const chunk of holder.stdout as unknown as AsyncIterable<Uint8Array>) {
    text += new TextDecoder().decode(chunk);
    for (const match of text.matchAll(/^(\w+) (\d+)$/gm)) pids.set(match[1]!, Number(match[2]));
    if (wanted.every((name) => pids.has(name))) return pids;
  }
  const stderr = await new Response(holder.stderr).text();
  throw new Error(`The sandbox could not be made: ${stderr.trim()}`);
}

/** Joins both network namespaces by a cable and gives them Azure's addresses. */
async function connect(
  platform: Place,
  guest: Place,
  guestPid: number,
  guestAddress: boolean,
): Promise<void> {
  await platform.run(["ip", "-batch", "-"], {
    stdin: [
      `link add p0 address 12:34:56:78:9a:bc type veth peer name eth0 address ${GUEST_MAC} netns ${guestPid}`,
      ...PLATFORM_ADDRESSES.map((address) => `address add ${address} dev p0`),
      "link set p0 up",
    ].join("\n"),
  });
  await guest.run(["ip", "-batch", "-"], {
    stdin: [
      "link set eth0 up",
      ...(guestAddress
        ? [`address add ${GUEST_ADDRESS}/24 dev eth0`, "route add default via 10.0.0.1"]
        : []),
    ].join("\n"),
  });
}

function bindLines(binds: NonNullable<SandboxOptions["binds"]>): string {
  return binds
    .map(({ from, to, writable }) => `${from}\t${to}\t${writable === true ? "rw" : "ro"}\n`)
    .join("");
}

let processNumber = 0;

/** Runs programs through a prefix that enters somebody's namespaces; their output is kept in `scratch`. */
export function createPlace(scratch: string, enter: readonly string[]): Place {
  // Files, not pipes: Bun's pipes are sockets, and a script that opens /dev/stdout would fail.
  const start = (
    argv: readonly string[],
    options: RunOptions,
    stderrFile: string,
    stdoutFile: string,
  ) => {
    const stdout = openSync(stdoutFile, "a", 0o600);
    const stderr = stderrFile === stdoutFile ? stdout : openSync(stderrFile, "a", 0o600);
    try {
      return Bun.spawn(
        [...enter, ...(options.cwd === undefined ? [] : ["env", "-C", options.cwd]), ...argv],
        {
          cwd: "/",
          env: { PATH, HOME: "/root", LC_ALL: "C", ...runtimeOf(argv), ...options.env },
          stdin: options.stdin === undefined ? "ignore" : new Blob([options.stdin as string]),
          stdout,
          stderr,
          detached: true,
        },
      );
    } finally {
      closeSync(stdout);
      if (stderr !== stdout) closeSync(stderr);
    }
  };

  const run = async (argv: readonly string[], options: RunOptions = {}): Promise<RunResult> => {
    const base = path.join(scratch, `run-${++processNumber}`);
    const child = start(argv, options, `${base}.err`, `${base}.out`);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child.pid);
    }, options.timeoutMs ?? 60_000);
    const code = await child.exited;
    clearTimeout(timer);
    const result = {
      code,
      stdout: readFileSync(`${base}.out`, "utf8"),
      stderr: readFileSync(`${base}.err`, "utf8"),
    };
    rmSync(`${base}.out`, { force: true });
    rmSync(`${base}.err`, { force: true });
    const said = `${result.stdout}${result.stderr}`.trim().slice(-2000);
    if (timedOut) throw new Error(`${argv.join(" ")} did not end in time: ${said}`);
    if (code !== 0 && options.allowFailure !== true)
      throw new Error(`${argv.join(" ")} failed with exit code ${code}: ${said}`);
    return result;
  };

  const spawn = (
    argv: readonly string[],
    options: Pick<RunOptions, "env" | "cwd"> = {},
  ): SandboxProcess => {
    const file = path.join(scratch, `spawn-${++processNumber}.log`);
    const child = start(argv, options, file, file);
    return {
      pid: child.pid,
      exited: child.exited,
      output: () => (existsSync(file) ? readFileSync(file, "utf8") : ""),
      signal: (signal) => {
        // nsenter stays outside as the parent of the program.
        const program = readFileSync(
          `/proc/${child.pid}/task/${child.pid}/children`,
          "utf8",
        ).trim();
        process.kill(program === "" ? child.pid : Number(program.split(" ")[0]), signal);
      },
      kill: async () => {
        killGroup(child.pid);
        await child.exited;
      },
    };
  };
  return { run, spawn };
}

/** A test's own Bun would leave a cache behind in the guest; agents and extensions see nothing of it. */
function runtimeOf(argv: readonly string[]): Readonly<Record<string, string>> {
  const isBun = /(?:^|\/)bun(?:\.exe)?$/.test(argv[0] ?? "");
  return isBun ? { BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0" } : {};
}

/** False for a zombie too: an orphan stays one until the machine's own init looks at it. */
export function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false; // no such process
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // ESRCH: already gone, which is what we want
  }
}

function listUpper(upper: string): Change[] {
  const changes: Change[] = [];
  const walk = (directory: string): void => {
    for (const name of readdirSync(upper + directory)) {
      try {
        look(`${directory}/${name}`);
      } catch (error) {
        if (errnoOf(error) !== "ENOENT") throw error; // a living agent removed it meanwhile
      }
    }
  };
  const look = (file: string): void => {
    const stats = lstatSync(upper + file);
    changes.push(describe(upper, file, stats));
    if (stats.isDirectory()) walk(file);
  };
  walk("");
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function describe(upper: string, file: string, stats: Stats): Change {
  const common = { path: file, mode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid };
  // The overlay's mark of a deleted path is a character device 0:0.
  if (stats.isCharacterDevice() && stats.rdev === 0)
    return { path: file, kind: "deleted", mode: 0, uid: 0, gid: 0, content: "" };
  if (stats.isFile()) {
    const content = createHash("sha256")
      .update(readFileSync(upper + file))
      .digest("hex");
    return { ...common, kind: "file", content };
  }
  if (stats.isSymbolicLink())
    return { ...common, kind: "link", content: readlinkSync(upper + file) };
  return { ...common, kind: stats.isDirectory() ? "directory" : "other", content: "" };
}
