import type { RemoteAccess, RemoteUser } from "../azure/goal-state.ts";
import { AgentError, describe, isAgentError } from "../base/error.ts";
import { Secret } from "../base/secret.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { createAccount, deleteAccount, findAccount, parseAccount } from "../provision/accounts.ts";
import { setPassword } from "../provision/passwords.ts";
import { allowSudo, removeSudo } from "../provision/sudoers.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * Just-in-time users (`wire-protocol.md` §8): accounts that the platform asks for and that end by themselves.
 * Only accounts with our mark are ever touched; a user of the machine that has the same name stays as it is (DB-10).
 */
export interface RemoteAccessUsers {
  /**
   * Brings the machine's users in line with the goal state. Cheap when there is nothing to do, so that it can be
   * asked every minute: users end when their time has come, not with the next goal state (DB-11).
   * Errors: only AgentError "cancelled".
   */
  update(wanted: WantedUsers, signal?: AbortSignal): Promise<void>;
}

export interface WantedUsers {
  /** Of the goal state: a new one means that everything is compared anew (JIT-02). */
  readonly incarnation: string;
  /** undefined when the goal state has no RemoteAccessInfo (JIT-11). */
  readonly remoteAccess: RemoteAccess | undefined;
}

export interface RemoteAccessUsersOptions {
  readonly config: Pick<
    Config,
    | "OS.HomeDir"
    | "OS.OpensslPath"
    | "OS.PasswordPath"
    | "OS.SudoersDir"
    | "Provisioning.AllowResetSysUser"
    | "Provisioning.PasswordCryptId"
    | "Provisioning.PasswordCryptSaltLength"
  >;
  /** Private key that the platform encrypts the passwords for; undefined when there is none. */
  readonly keyFile: () => SystemPath | undefined;
}

type Machine = Pick<System, "exec" | "files" | "log" | "emit" | "clock">;

/** How a user of ours is told from others (JIT-03). */
export const USER_MARK = "JIT_Account";
const DAY_MS = 24 * 3600 * 1000;
const REPEAT_MS = 3600 * 1000;
const PASSWD: SystemPath = "/etc/passwd";

/** What is to be done; `unreadable` and `foreign` users are left alone. */
export interface UserPlan {
  readonly create: readonly RemoteUser[];
  readonly remove: readonly string[];
  /** Listed with an expiration that cannot be read (JIT-04). */
  readonly unreadable: readonly RemoteUser[];
  /** Listed, but the name belongs to a user that is not ours (DB-10). */
  readonly foreign: readonly string[];
}

/** Pure: JIT-05, JIT-06. The first of two entries of one name counts. */
export function planUsers(
  listed: readonly RemoteUser[],
  present: { readonly ours: ReadonlySet<string>; readonly others: ReadonlySet<string> },
  now: number,
): UserPlan {
  const plan = {
    create: [] as RemoteUser[],
    remove: [] as string[],
    unreadable: [] as RemoteUser[],
    foreign: [] as string[],
  };
  const seen = new Set<string>();
  for (const user of listed) {
    if (seen.has(user.name)) continue;
    seen.add(user.name);
    const isOurs = present.ours.has(user.name);
    if (user.expiresAt === undefined) plan.unreadable.push(user);
    else if (present.others.has(user.name)) plan.foreign.push(user.name);
    else if (isOurs && now > user.expiresAt) plan.remove.push(user.name);
    else if (!isOurs && now < user.expiresAt) plan.create.push(user);
  }
  for (const name of present.ours) if (!seen.has(name)) plan.remove.push(name);
  return plan;
}

export function createRemoteAccessUsers(
  system: Machine,
  distro: Distro,
  options: RemoteAccessUsersOptions,
): RemoteAccessUsers {
  const { config } = options;
  const { log, clock } = system;
  /** Incarnation that was compared completely; undefined: the next update compares. */
  let settled: string | undefined;
  /** The list was gone and no user of ours is left (JIT-11). */
  let swept = false;
  /** Wall-clock time of the next expiry among users that are on the machine, ms. */
  let nextExpiry = Number.POSITIVE_INFINITY;

  const failed = (message: string): void => {
    log.periodically("ERROR", REPEAT_MS, message);
    system.emit({
      operation: "RemoteAccessHandling",
      success: false,
      message,
      log: false,
      periodMs: REPEAT_MS,
    });
  };

  /** One user's failure does not stop the others (JIT-06). */
  const attempt = async (doing: string, action: () => Promise<void>): Promise<boolean> => {
    try {
      await action();
      return true;
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      failed(`${doing}: ${describe(error)}`);
      return false;
    }
  };

  const create = async (user: RemoteUser, signal: AbortSignal | undefined): Promise<void> => {
    // Before anything is made: without a password there must be no user.
    const password = await decryptPassword(system, user, options, signal);
    const expires = new Date((user.expiresAt ?? 0) + DAY_MS).toISOString().slice(0, 10);
    const wanted = { name: user.name, expires, comment: USER_MARK };
    const { account } = await createAccount(system, distro, wanted, {
      homeDirectory: config["OS.HomeDir"],
    });
    if (account.comment !== USER_MARK)
      throw new AgentError("refused", `the name belongs to a user of this machine`);
    try {
      await setPassword(system, distro, account, { password, config });
      await allowSudo(system, distro, config, { userName: user.name, withoutPassword: false });
    } catch (error) {
      await attempt(`Could not remove the half-made user ${user.name}`, () => remove(user.name));
      throw error;
    }
    log.info(`Just-in-time user ${user.name} created, expires ${user.expirationText}`);
  };

  const remove = async (name: string): Promise<void> => {
    const account = await findAccount(system, name);
    if (account !== undefined && account.comment !== USER_MARK)
      throw new AgentError("refused", `${name} is a user of this machine, it will not be deleted`);
    if (account !== undefined) {
      touchSessions(system);
      await deleteAccount(system, distro, account);
    }
    await removeSudo(system, distro, config, name);
    log.info(`Just-in-time user ${name} removed`);
  };

  const removeAll = async (names: readonly string[]): Promise<boolean> => {
    let complete = true;
    for (const name of names) {
      const done = await attempt(`Could not remove the just-in-time user ${name}`, () =>
        remove(name),
      );
      complete &&= done;
    }
    return complete;
  };

  /** A user that a killed agent left without a password is removed, and made anew like any missing one. */
  const withoutUnfinished = async (ours: ReadonlySet<string>): Promise<ReadonlySet<string>> => {
    const unfinished = [...ours].filter((name) => hasNoPassword(system, config, name));
    await removeAll(unfinished);
    return unfinished.length === 0 ? ours : readUsers(system).ours;
  };

  const sweep = async (): Promise<void> => {
    if (swept) return;
    swept = await removeAll([...readUsers(system).ours]);
  };

  const compare = async (
    remoteAccess: RemoteAccess,
    signal: AbortSignal | undefined,
  ): Promise<boolean> => {
    const users = readUsers(system);
    const ours = await withoutUnfinished(users.ours);
    const plan = planUsers(remoteAccess.users, { ours, others: users.others }, clock.now());
    for (const user of plan.unreadable)
      log.warning(
        `Just-in-time user ${user.name} is skipped: its expiration ${JSON.stringify(user.expirationText)} cannot be read`,
      );
    for (const name of plan.foreign)
      failed(`Just-in-time user ${name} is skipped: a user of this machine has that name`);
    for (const user of plan.create)
      await attempt(`Could not create the just-in-time user ${user.name}`, () =>
        create(user, signal),
      );
    const complete = await removeAll(plan.remove);
    const left = readUsers(system).ours;
    nextExpiry = Math.min(
      ...remoteAccess.users
        .filter((user) => left.has(user.name))
        .map((user) => user.expiresAt ?? Number.POSITIVE_INFINITY),
    );
    return complete;
  };

  return {
    update: async ({ incarnation, remoteAccess }, signal) => {
      if (!distro.justInTimeUsers) return;
      await attempt("Could not handle just-in-time users", async () => {
        if (remoteAccess === undefined) {
          settled = undefined;
          return sweep();
        }
        swept = false;
        const isNew = settled !== incarnation;
        if (!isNew && clock.now() <= nextExpiry) return;
        const users = isNew ? remoteAccess : onlyPresent(system, remoteAccess);
        // What could not be removed is tried again at the next look.
        if (!(await compare(users, signal))) nextExpiry = clock.now() - 1;
        settled = incarnation;
      });
    },
  };
}

/** For a look between goal states: nobody is created then (JIT-02). */
function onlyPresent(system: Pick<System, "files">, remoteAccess: RemoteAccess): RemoteAccess {
  const { ours } = readUsers(system);
  return { ...remoteAccess, users: remoteAccess.users.filter((user) => ours.has(user.name)) };
}

/** Users of the local database by whether they carry our mark; accounts of directories are never ours. */
function readUsers(system: Pick<System, "files">): {
  readonly ours: ReadonlySet<string>;
  readonly others: ReadonlySet<string>;
} {
  const ours = new Set<string>();
  const others = new Set<string>();
  for (const line of (system.files.readTextIfExists(PASSWD) ?? "").split("\n")) {
    const account = parseAccount(line);
    if (account !== undefined) (account.comment === USER_MARK ? ours : others).add(account.name);
  }
  return { ours, others };
}

function hasNoPassword(
  system: Pick<System, "files">,
  config: Pick<Config, "OS.PasswordPath">,
  name: string,
): boolean {
  const text = system.files.readTextIfExists(config["OS.PasswordPath"] as SystemPath) ?? "";
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${name}:`));
  return line !== undefined && /^(?:[!*].*|)$/.test(line.split(":")[1] ?? "");
}

/** userdel looks for sessions in a file that machines without logins may not have (JIT-10). */
function touchSessions(system: Pick<System, "files">): void {
  try {
    if (system.files.exists("/var/run")) system.files.append("/var/run/utmp", "", { mode: 0o664 });
  } catch {
    // only a help for userdel; what it cannot do without it, it says itself
  }
}

/** Errors: AgentError "crypt", which never shows what was decrypted (JIT-08). */
export async function decryptPassword(
  system: Pick<System, "exec" | "files">,
  user: Pick<RemoteUser, "encryptedPassword">,
  { config, keyFile }: RemoteAccessUsersOptions,
  signal?: AbortSignal,
): Promise<Secret> {
  const key = keyFile();
  if (key === undefined)
    throw new AgentError("crypt", "there is no transport key to decrypt its password with");
  const envelope = Buffer.from(user.encryptedPassword.reveal(), "base64");
  if (envelope.length === 0) throw new AgentError("crypt", "its password is not base64");
  let plain: Uint8Array;
  try {
    const { stdoutBytes } = await system.exec.run({
      argv: [
        config["OS.OpensslPath"],
        "cms",
        "-decrypt",
        "-inform",
        "DER",
        "-inkey",
        system.files.realPath(key),
      ],
      stdin: envelope,
      timeoutMs: 30_000,
      maxOutputBytes: 64 * 1024,
      signal,
    });
    plain = stdoutBytes;
  } catch (error) {
    throw new AgentError("crypt", "its password cannot be decrypted", { cause: error });
  }
  return decodePassword(plain);
}

/** UTF-16 with a byte order mark, little-endian without (JIT-08). Errors: AgentError "crypt". */
export function decodePassword(bytes: Uint8Array): Secret {
  const big = bytes[0] === 0xfe && bytes[1] === 0xff;
  const marked = big || (bytes[0] === 0xff && bytes[1] === 0xfe);
  const body = marked ? bytes.subarray(2) : bytes;
  let text: string;
  try {
    text = new TextDecoder(big ? "utf-16be" : "utf-16le", { fatal: true, ignoreBOM: true }).decode(
      body,
    );
  } catch {
    throw new AgentError("crypt", "its decrypted password is not UTF-16 text");
  }
  if (text === "") throw new AgentError("crypt", "its decrypted password is empty");
  if (/[\r\n\0]/.test(text))
    throw new AgentError("crypt", "its decrypted password has a line break or NUL in it");
  return new Secret(text);
}
