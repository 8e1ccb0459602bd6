import { describe, expect, test } from "bun:test";
import {
  createRemoteAccessUsers,
  decodePassword,
  planUsers,
  USER_MARK,
} from "../../../src/agent/remote-access-users.ts";
import { AgentError } from "../../../src/base/error.ts";
import type { RemoteUser } from "../../../src/azure/goal-state.ts";
import { Secret } from "../../../src/base/secret.ts";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import type { Distro } from "../../../src/distro/distro.ts";
import { fakeAccounts } from "../../fakes/accounts.ts";
import { distroNamed } from "../../fakes/distro.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const NOW = Date.UTC(2030, 0, 10, 12);
const HOUR = 3600_000;
const KEY = "/var/lib/waagent/TransportPrivate.pem";

function user(name: string, expiresAt: number | "unreadable" = NOW + HOUR): RemoteUser {
  return {
    name,
    encryptedPassword: new Secret(Buffer.from(`envelope of ${name}`).toString("base64")),
    expiresAt: expiresAt === "unreadable" ? undefined : expiresAt,
    expirationText: expiresAt === "unreadable" ? "2030-01-01" : new Date(expiresAt).toUTCString(),
  };
}
const utf16 = (text: string): string => [...text].map((character) => `${character}\0`).join("");

function world(
  change: { config?: Partial<Config>; distro?: Partial<Distro>; noKey?: boolean } = {},
) {
  const system = createFakeSystem({ now: NOW, automatic: false });
  const accounts = fakeAccounts(system);
  const decrypted: string[] = [];
  system.files.makeDirectory("/etc/sudoers.d");
  system.programs.set("openssl", (argv, stdin) => {
    decrypted.push(argv.join(" "));
    const name = /^envelope of (.*)$/.exec(stdin)?.[1] ?? "";
    return name === "broken" ? { code: 1, stderr: "bad decrypt" } : { stdout: utf16(`pw-${name}`) };
  });
  const config = { ...defaultConfig(), ...change.config };
  const users = createRemoteAccessUsers(
    system,
    { ...distroNamed("ubuntu", "22.04"), ...change.distro },
    { config, keyFile: () => (change.noKey === true ? undefined : KEY) },
  );
  const update = (incarnation: string, list: readonly RemoteUser[] | undefined) =>
    users.update({
      incarnation,
      remoteAccess: list === undefined ? undefined : { incarnation, users: list },
    });
  const sudoers = () => system.files.readTextIfExists("/etc/sudoers.d/waagent") ?? "";
  const mutations = () =>
    system.commands
      .filter(([name]) => ["useradd", "userdel", "chpasswd"].includes(name ?? ""))
      .map(([name]) => name);
  return {
    system,
    accounts,
    decrypted,
    update,
    sudoers,
    mutations,
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}

describe("plan", () => {
  const present = (ours: string[], others: string[] = []) => ({
    ours: new Set(ours),
    others: new Set(others),
  });
  const names = (plan: ReturnType<typeof planUsers>) => ({
    create: plan.create.map((one) => one.name),
    remove: plan.remove,
    unreadable: plan.unreadable.map((one) => one.name),
    foreign: plan.foreign,
  });

  test("wire-protocol.md JIT-05 JIT-06: created before, deleted after their time, deleted when no longer listed", () => {
    const plan = planUsers(
      [user("new"), user("late", NOW - 1), user("there"), user("over", NOW - 1), user("now", NOW)],
      present(["there", "over", "unlisted"]),
      NOW,
    );
    expect(names(plan)).toEqual({
      create: ["new"],
      remove: ["over", "unlisted"],
      unreadable: [],
      foreign: [],
    });
  });

  test("wire-protocol.md JIT-04 FIX-17: an unreadable expiration skips the user, here or not; the first of two entries counts", () => {
    const plan = planUsers(
      [
        user("odd", "unreadable"),
        user("here", "unreadable"),
        user("twice"),
        user("twice", NOW - 1),
      ],
      present(["here"]),
      NOW,
    );
    expect(names(plan)).toEqual({
      create: ["twice"],
      remove: [],
      unreadable: ["odd", "here"],
      foreign: [],
    });
  });

  test("wire-protocol.md DB-10 JIT-13: a user of the machine with that name is left alone", () => {
    expect(
      names(planUsers([user("admin"), user("root", NOW - 1)], present([], ["admin", "root"]), NOW)),
    ).toEqual({
      create: [],
      remove: [],
      unreadable: [],
      foreign: ["admin", "root"],
    });
  });
});

describe("password", () => {
  test("wire-protocol.md JIT-08: UTF-16 with a mark in either order, little-endian without", () => {
    const little = Buffer.from("pä中😀", "utf16le");
    const big = Buffer.from(little).swap16();
    for (const bytes of [
      little,
      Buffer.concat([Buffer.from([0xff, 0xfe]), little]),
      Buffer.concat([Buffer.from([0xfe, 0xff]), big]),
    ])
      expect(decodePassword(bytes).reveal()).toBe("pä中😀");
  });

  test("wire-protocol.md JIT-08: what is no usable password is refused without showing it", () => {
    for (const bytes of [
      Buffer.from("abc"),
      Buffer.from(""),
      Buffer.from([0xff, 0xfe]),
      Buffer.from([0x00, 0xd8, 0x41, 0x00]),
      Buffer.from("a\nroot:x", "utf16le"),
    ])
      expect(() => decodePassword(bytes)).toThrow(AgentError);
  });
});

describe("users of the machine", () => {
  test("provisioning.md USER-40 wire-protocol.md JIT-03 JIT-07 JIT-08 JIT-09: made with mark, expiry a day later, password by standard input, sudo", async () => {
    using w = world();
    await w.update("1", [user("jit1")]);
    expect(w.system.commands.find(([name]) => name === "useradd")).toEqual([
      "useradd",
      "-m",
      "jit1",
      "-e",
      "2030-01-11",
      "-c",
      "JIT_Account",
    ]);
    expect(w.decrypted).toEqual([
      `/usr/bin/openssl cms -decrypt -inform DER -inkey ${w.system.files.realPath(KEY)}`,
    ]);
    expect(w.accounts.hash("jit1")).toMatch(/^\$6\$[A-Za-z0-9]{10}\$/);
    expect(w.sudoers()).toBe("jit1 ALL=(ALL) ALL\n");
    expect(w.system.files.stat("/etc/sudoers.d/waagent")?.mode).toBe(0o440);
    const shown = JSON.stringify([w.system.commands, w.system.lines, w.system.events]);
    expect(shown).not.toContain("pw-jit1");
    expect(shown).not.toContain("$6$");
  });

  test("wire-protocol.md JIT-05: an existing user of ours is not changed", async () => {
    using w = world();
    await w.update("1", [user("jit1")]);
    const hash = w.accounts.hash("jit1");
    await w.update("2", [user("jit1", NOW + 5 * HOUR)]);
    expect(w.accounts.hash("jit1")).toBe(hash!);
    expect(w.mutations()).toEqual(["useradd", "chpasswd"]);
  });

  test("wire-protocol.md JIT-06 JIT-10: deleted when unlisted, with home and exactly its own sudo line", async () => {
    using w = world();
    await w.update("1", [user("jit"), user("jit1")]);
    await w.update("2", [user("jit1")]);
    expect(w.accounts.names()).toEqual(["root", "jit1"]);
    expect(w.sudoers()).toBe("jit1 ALL=(ALL) ALL\n");
    expect(w.system.commands.find(([name]) => name === "userdel")).toEqual([
      "userdel",
      "-f",
      "-r",
      "jit",
    ]);
    expect(w.system.files.exists("/home/jit")).toBeFalse();
  });

  test("wire-protocol.md JIT-02 DB-11: compared once for each goal state; expiry is noticed by itself", async () => {
    using w = world();
    await w.update("1", [user("short", NOW + HOUR), user("long", NOW + 3 * HOUR)]);
    const before = w.system.commands.length;
    await w.update("1", [user("short", NOW + HOUR), user("long", NOW + 3 * HOUR), user("late")]);
    expect(w.system.commands).toHaveLength(before);
    await w.system.clock.advance(HOUR + 1);
    await w.update("1", [
      user("short", NOW + HOUR),
      user("long", NOW + 3 * HOUR),
      user("late", NOW + 9 * HOUR),
    ]);
    expect(w.accounts.names()).toEqual(["root", "long"]);
    w.system.clock.step(2 * HOUR);
    await w.update("1", [user("short", NOW + HOUR), user("long", NOW + 3 * HOUR)]);
    expect(w.accounts.names()).toEqual(["root"]);
    expect(w.sudoers()).toBe("");
  });

  test("wire-protocol.md JIT-11: without RemoteAccessInfo all of ours go, once, and again only if one failed", async () => {
    using w = world();
    await w.update("1", [user("a"), user("b")]);
    w.accounts.failNext("userdel", 1);
    await w.update("2", undefined);
    expect(w.accounts.names()).toEqual(["root", "a"]);
    await w.update("2", undefined);
    expect(w.accounts.names()).toEqual(["root"]);
    w.accounts.add("left", { comment: USER_MARK });
    await w.update("3", undefined);
    expect(w.accounts.names()).toEqual(["root", "left"]);
    await w.update("4", []);
    expect(w.accounts.names()).toEqual(["root"]);
  });

  test("wire-protocol.md JIT-06: a deletion that failed is tried again at the next look", async () => {
    using w = world();
    await w.update("1", [user("a")]);
    w.accounts.failNext("userdel", 1);
    await w.update("2", []);
    expect(w.accounts.names()).toEqual(["root", "a"]);
    await w.update("2", []);
    expect(w.accounts.names()).toEqual(["root"]);
  });

  test("wire-protocol.md JIT-02: nothing happens where these users are not supported", async () => {
    using w = world({ distro: { justInTimeUsers: false } });
    await w.update("1", [user("jit1")]);
    await w.update("2", undefined);
    expect(w.system.commands).toEqual([]);
  });
});

describe("never harm a user of the machine", () => {
  test("wire-protocol.md DB-10 JIT-13: same name: no password, no sudo, no deletion, and it is told", async () => {
    using w = world();
    w.accounts.add("admin", { hash: "$6$original" });
    await w.update("1", [user("admin"), user("root"), user("jit1")]);
    await w.update("2", [user("admin", NOW - HOUR)]);
    await w.update("3", undefined);
    expect(w.accounts.names()).toEqual(["root", "admin"]);
    expect(w.accounts.hash("admin")).toBe("$6$original");
    expect(w.sudoers()).toBe("");
    expect(w.system.events.map((event) => [event.operation, event.success])).toContainEqual([
      "RemoteAccessHandling",
      false,
    ]);
    expect(w.system.lines.join("\n")).toContain(
      "Just-in-time user admin is skipped: a user of this machine has that name",
    );
  });

  test("wire-protocol.md DB-10: a system user with the mark is refused", async () => {
    using w = world();
    w.system.files.write("/etc/login.defs", "UID_MIN 1000\n");
    w.accounts.add("daemonish", { uid: 50, comment: USER_MARK, hash: "$6$x" });
    await w.update("1", []);
    expect(w.accounts.names()).toContain("daemonish");
    expect(w.system.lines.join("\n")).toContain(
      "daemonish is a system user, it will not be deleted",
    );
  });

  test("wire-protocol.md DB-10: a mark inside of another comment is none", async () => {
    using w = world();
    w.accounts.add("almost", { comment: `${USER_MARK},room 5`, hash: "$6$x" });
    await w.update("1", []);
    expect(w.accounts.names()).toContain("almost");
  });
});

describe("failures", () => {
  test("wire-protocol.md JIT-06 JIT-07 JIT-12: a password that cannot be decrypted makes no user, and stops no other", async () => {
    using w = world();
    await w.update("1", [user("broken"), user("jit1")]);
    expect(w.accounts.names()).toEqual(["root", "jit1"]);
    expect(w.system.events).toMatchObject([
      {
        operation: "RemoteAccessHandling",
        success: false,
        message: expect.stringContaining(
          "Could not create the just-in-time user broken: its password cannot be decrypted",
        ),
      },
    ]);
  });

  test("wire-protocol.md JIT-07: when something after the creation fails the user is removed again", async () => {
    using w = world();
    w.system.programs.set("chpasswd", () => ({ code: 2, stderr: "no" }));
    await w.update("1", [user("jit1")]);
    expect(w.accounts.names()).toEqual(["root"]);
    expect(w.mutations()).toEqual(["useradd", "chpasswd", "userdel"]);
    expect(w.system.events).toHaveLength(1);
  });

  test("wire-protocol.md JIT-07: a user that a killed agent left without a password is made anew", async () => {
    using w = world();
    w.accounts.add("jit1", { comment: USER_MARK, hash: "!" });
    await w.update("1", [user("jit1")]);
    expect(w.accounts.hash("jit1")).toStartWith("$6$");
    expect(w.mutations()).toEqual(["userdel", "useradd", "chpasswd"]);
  });

  test("wire-protocol.md JIT-08: without a transport key nobody is made", async () => {
    using w = world({ noKey: true });
    await w.update("1", [user("jit1")]);
    expect(w.accounts.names()).toEqual(["root"]);
    expect(w.system.lines.join()).toContain("there is no transport key");
  });

  test("wire-protocol.md JIT-12: an unreadable user database is an event, not the end of the agent", async () => {
    using w = world();
    w.system.files.remove("/etc/passwd");
    w.system.files.makeDirectory("/etc/passwd");
    await w.update("1", [user("jit1")]);
    expect(w.system.events).toMatchObject([{ operation: "RemoteAccessHandling", success: false }]);
  });
});
