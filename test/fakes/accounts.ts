import type { SystemPath } from "../../src/system/root.ts";
import type { FakeSystem } from "./system.ts";

/** User database of a fake machine: the programs of shadow-utils, acting on its own passwd and shadow files. */
export interface FakeAccounts {
  /** Adds a user as the machine's owner would. */
  add(name: string, options?: { uid?: number; comment?: string; hash?: string }): void;
  names(): string[];
  /** Second field of shadow. */
  hash(name: string): string | undefined;
  /** The next run of the program ends with this code. */
  failNext(program: string, code: number): void;
}

const PASSWD: SystemPath = "/etc/passwd";
const SHADOW: SystemPath = "/etc/shadow";

export function fakeAccounts(system: FakeSystem): FakeAccounts {
  const failures = new Map<string, number>();
  let nextUid = 1000;
  system.files.makeDirectory("/etc");
  system.files.makeDirectory("/home");
  system.files.write(PASSWD, "root:x:0:0:root:/root:/bin/bash\n", { mode: 0o644 });
  system.files.write(SHADOW, "root:*:19000:0:99999:7:::\n", { mode: 0o600 });

  const lines = (file: SystemPath): string[] =>
    system.files
      .readText(file)
      .split("\n")
      .filter((line) => line !== "");
  const store = (file: SystemPath, content: readonly string[]): void =>
    system.files.write(file, `${content.join("\n")}\n`, { mode: file === SHADOW ? 0o600 : 0o644 });
  const names = (): string[] => lines(PASSWD).map((line) => line.split(":")[0] ?? "");

  const add: FakeAccounts["add"] = (name, options = {}) => {
    const uid = options.uid ?? nextUid++;
    const entry = `${name}:x:${uid}:${uid}:${options.comment ?? ""}:/home/${name}:/bin/bash`;
    store(PASSWD, [...lines(PASSWD), entry]);
    store(SHADOW, [...lines(SHADOW), `${name}:${options.hash ?? "!"}:19000:0:99999:7:::`]);
    system.files.makeDirectory(`/home/${name}`);
  };

  const program = (
    name: string,
    action: (
      argv: readonly string[],
      stdin: string,
    ) => { code?: number; stdout?: string; stderr?: string },
  ): void => {
    system.programs.set(name, (argv, stdin) => {
      const code = failures.get(name);
      failures.delete(name);
      if (code !== undefined) return { code, stderr: `${name}: told to fail` };
      return action(argv, stdin);
    });
  };
  program("getent", (argv) => {
    const found = lines(PASSWD).find((line) => line.startsWith(`${argv[2]}:`));
    return found === undefined ? { code: 2 } : { stdout: `${found}\n` };
  });
  program("useradd", (argv) => {
    const value = (flag: string): string | undefined =>
      argv.includes(flag) ? argv[argv.indexOf(flag) + 1] : undefined;
    const name = value("-m") ?? "";
    if (names().includes(name)) return { code: 9, stderr: "user exists" };
    const comment = value("-c");
    add(name, comment === undefined ? {} : { comment });
    return {};
  });
  program("userdel", (argv) => {
    const name = argv.at(-1) ?? "";
    if (!names().includes(name)) return { code: 6, stderr: "no such user" };
    for (const file of [PASSWD, SHADOW])
      store(
        file,
        lines(file).filter((line) => !line.startsWith(`${name}:`)),
      );
    system.files.remove(`/home/${name}`);
    return {};
  });
  program("chpasswd", (_, stdin) => {
    const [name = "", hash = ""] = stdin.trim().split(":");
    store(
      SHADOW,
      lines(SHADOW).map((line) =>
        // A function: a hash has `$` in it, which a replacement text would read as a group.
        line.startsWith(`${name}:`) ? line.replace(/^[^:]*:[^:]*/, () => `${name}:${hash}`) : line,
      ),
    );
    return {};
  });
  return {
    add,
    names,
    hash: (name) =>
      lines(SHADOW)
        .find((line) => line.startsWith(`${name}:`))
        ?.split(":")[1],
    failNext: (name, code) => void failures.set(name, code),
  };
}
