import { AgentError, isAgentError } from "../base/error.ts";
import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** One entry of the user database. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly comment: string;
  readonly home: SystemPath;
  readonly shell: string;
}

type Machine = Pick<System, "exec" | "files" | "log" | "clock">;

const LOCK_RETRIES = 5;
const LOCK_RETRY_MS = 1000;
/** useradd's codes for "the name is in use" and "the files cannot be updated or locked". */
const USERADD_EXISTS = 9;
const USERADD_BUSY: readonly number[] = [1, 10];

/** Through NSS, so accounts of directories count too (USER-01); undefined when there is none. */
export async function findAccount(
  system: Pick<System, "exec" | "files">,
  name: string,
): Promise<Account | undefined> {
  try {
    const { code, stdout } = await system.exec.run({
      argv: ["getent", "passwd", name],
      okCodes: "any",
      timeoutMs: 30_000,
    });
    if (code === 0) return parseAccount(stdout.split("\n")[0] ?? "", name);
    if (code === 2) return undefined;
  } catch (error) {
    if (!isAgentError(error, "program-missing")) throw error;
  }
  const entries = system.files.readTextIfExists("/etc/passwd") ?? "";
  for (const line of entries.split("\n")) {
    const account = parseAccount(line, name);
    if (account !== undefined) return account;
  }
  return undefined;
}

export function parseAccount(line: string, name?: string): Account | undefined {
  const fields = line.split(":");
  const [login = "", , uid = "", gid = "", comment = "", home = "", shell = ""] = fields;
  if (fields.length < 7 || (name !== undefined && login !== name)) return undefined;
  if (!/^\d+$/.test(uid) || !/^\d+$/.test(gid) || !home.startsWith("/")) return undefined;
  return {
    name: login,
    uid: Number(uid),
    gid: Number(gid),
    comment,
    home: home as SystemPath,
    shell: shell.trim(),
  };
}

/** Errors: AgentError "os-utility" when there is no such account. */
export async function requireAccount(
  system: Pick<System, "exec" | "files">,
  name: string,
): Promise<Account> {
  const account = await findAccount(system, name);
  if (account === undefined) throw new AgentError("os-utility", `The user ${name} does not exist`);
  return account;
}

export interface NewAccount {
  readonly name: string;
  /** Last day, `YYYY-MM-DD`. */
  readonly expires?: string;
  readonly comment?: string;
}

/**
 * Makes the account with its home, unless it exists (USER-01, USER-02). Safe to repeat after a crash at any point.
 * Errors: AgentError "os-utility" with the program's code and output, "not-supported" where the system cannot.
 */
export async function createAccount(
  system: Machine,
  distro: Distro,
  wanted: NewAccount,
  options: { homeDirectory: string },
): Promise<{ account: Account; created: boolean }> {
  if (!/^[A-Za-z_][\w.-]*$/.test(wanted.name))
    throw new AgentError("os-utility", `${JSON.stringify(wanted.name)} is not a usable user name`);
  const existing = await findAccount(system, wanted.name);
  if (existing !== undefined) {
    system.log.info(`User ${wanted.name} already exists, skip useradd`);
    return { account: existing, created: false };
  }
  const home = options.homeDirectory as SystemPath;
  if (!system.files.exists(home)) system.files.makeDirectory(home, { mode: 0o755 });
  const argv = creationCommand(system, distro, wanted);
  for (let attempt = 1; ; attempt += 1) {
    try {
      await system.exec.run({ argv, timeoutMs: 120_000 });
      break;
    } catch (error) {
      // A useradd that a killed agent left running may hold the lock, or may have finished meanwhile.
      const status = isAgentError(error, "exec") ? error.status : undefined;
      const found = await findAccount(system, wanted.name);
      if (found !== undefined && (status === USERADD_EXISTS || USERADD_BUSY.includes(status ?? -1)))
        break;
      if (attempt < LOCK_RETRIES && status !== undefined && USERADD_BUSY.includes(status)) {
        await system.clock.sleep(LOCK_RETRY_MS);
        continue;
      }
      throw new AgentError("os-utility", `Failed to create the user account ${wanted.name}`, {
        cause: error,
      });
    }
  }
  return { account: await requireAccount(system, wanted.name), created: true };
}

/** The one command that makes an account on this system; the matrix of `provisioning.md` USER-02, USER-03. */
export function creationCommand(
  system: Pick<System, "exec">,
  distro: Pick<Distro, "userTool" | "adapter">,
  wanted: NewAccount,
): readonly string[] {
  const expiry = wanted.expires === undefined ? [] : ["-e", wanted.expires];
  const comment = wanted.comment === undefined ? [] : ["-c", wanted.comment];
  switch (distro.userTool) {
    case "pw":
      return ["pw", "useradd", wanted.name, ...expiry, "-m", ...comment];
    case "unsupported":
      throw new AgentError(
        "not-supported",
        `Accounts cannot be made on ${distro.adapter}: the user ${wanted.name} must exist`,
      );
    case "useradd-ash":
      return ["useradd", "-m", wanted.name, "-s", "/bin/ash", ...expiry, ...comment];
    default: {
      // Alpine and other BusyBox systems have only adduser.
      const isBusyBox =
        system.exec.find("useradd") === undefined && system.exec.find("adduser") !== undefined;
      if (!isBusyBox) return ["useradd", "-m", wanted.name, ...expiry, ...comment];
      if (wanted.expires !== undefined)
        throw new AgentError(
          "not-supported",
          `The user ${wanted.name} needs an expiry date, which adduser of BusyBox does not know`,
        );
      return [
        "adduser",
        "-D",
        ...(wanted.comment === undefined ? [] : ["-g", wanted.comment]),
        wanted.name,
      ];
    }
  }
}

/**
 * Refuses accounts below UID_MIN (USER-10). Errors: AgentError "os-utility".
 * Flatcar's `core` and the like are never system users.
 */
export async function refuseSystemUser(
  system: Pick<System, "files">,
  distro: Pick<Distro, "ordinaryUsers">,
  account: Account,
): Promise<void> {
  if (isSystemUser(system, distro, account))
    throw new AgentError(
      "os-utility",
      `User ${account.name} is a system user, its password will not be set`,
    );
}

export function isSystemUser(
  system: Pick<System, "files">,
  distro: Pick<Distro, "ordinaryUsers">,
  account: Account,
): boolean {
  return !distro.ordinaryUsers.includes(account.name) && account.uid < minimumUid(system);
}

/** UID_MIN of /etc/login.defs, 100 without it (USER-10). */
export function minimumUid(system: Pick<System, "files">): number {
  const text = system.files.readTextIfExists("/etc/login.defs") ?? "";
  const line = text.split("\n").find((candidate) => candidate.startsWith("UID_MIN"));
  const value = Number(line?.split(/\s+/)[1]);
  return Number.isSafeInteger(value) && line !== undefined ? value : 100;
}

/**
 * Removes account and home (USER-30); sessions are ended first (DB-35).
 * Errors: AgentError "refused" for a system user, "os-utility" with the program's words.
 */
export async function deleteAccount(
  system: Machine,
  distro: Distro,
  account: Account,
): Promise<void> {
  if (isSystemUser(system, distro, account))
    throw new AgentError("refused", `${account.name} is a system user, it will not be deleted`);
  for (const argv of deletionCommands(system, distro, account.name)) {
    try {
      await system.exec.run({ ...argv, timeoutMs: 120_000 });
    } catch (error) {
      if (isAgentError(error, "program-missing") && argv.optional) continue;
      throw new AgentError("os-utility", `Failed to delete the user ${account.name}`, {
        cause: error,
      });
    }
  }
}

interface DeletionCommand {
  readonly argv: readonly string[];
  readonly okCodes?: readonly number[] | "any";
  readonly optional?: boolean;
}

export function deletionCommands(
  system: Pick<System, "exec">,
  distro: Pick<Distro, "userTool" | "adapter">,
  name: string,
): readonly DeletionCommand[] {
  switch (distro.userTool) {
    case "pw":
      return [{ argv: ["rmuser", "-y", name] }];
    case "openbsd-useradd":
      return [{ argv: ["userdel", "-r", name] }];
    case "unsupported":
      throw new AgentError("not-supported", `Accounts cannot be deleted on ${distro.adapter}`);
    default: {
      const sessions: DeletionCommand[] = [
        { argv: ["loginctl", "terminate-user", name], okCodes: "any", optional: true },
        { argv: ["pkill", "-KILL", "-u", name], okCodes: "any", optional: true },
      ];
      if (system.exec.find("userdel") === undefined && system.exec.find("deluser") !== undefined)
        return [...sessions, { argv: ["deluser", "--remove-home", name] }];
      // 12: the mail spool or home was already gone.
      return [...sessions, { argv: ["userdel", "-f", "-r", name], okCodes: [0, 12] }];
    }
  }
}
