import { randomInt } from "node:crypto";
import { AgentError, isAgentError } from "../base/error.ts";
import { Secret } from "../base/secret.ts";
import type { System } from "../system/system.ts";

/**
 * Password methods whose salt carries parameters, made by the system's own crypt library: only then is it certain
 * that the system can check them later (`provisioning.md` USER-13, DB-07).
 */
interface Method {
  /** `mkpasswd -m` name. */
  readonly name: string;
  readonly prefix: string;
  readonly saltLength: number;
}

const METHODS: Readonly<Record<string, Method>> = {
  y: { name: "yescrypt", prefix: "$y$j9T$", saltLength: 22 },
  gy: { name: "gost-yescrypt", prefix: "$gy$j9T$", saltLength: 22 },
  "2b": { name: "bcrypt", prefix: "$2b$12$", saltLength: 22 },
  "2a": { name: "bcrypt-a", prefix: "$2a$12$", saltLength: 22 },
};

/** Reads salt and password as two lines; the password may have no line end of its own. */
const PERL_CRYPT =
  "local $/; my ($salt, $password) = split /\\n/, <STDIN>, 2; print crypt($password, $salt)";
const ITOA64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** Errors: AgentError "os-utility" when the method is unknown, or the system has no program that produces it. */
export async function systemCrypt(
  system: Pick<System, "exec">,
  password: Secret,
  id: string,
): Promise<Secret> {
  const method = METHODS[id];
  if (method === undefined)
    throw new AgentError(
      "os-utility",
      `Provisioning.PasswordCryptId ${JSON.stringify(id)} is not a known password method`,
    );
  const salt = `${method.prefix}${randomSetting(method.saltLength)}`;
  const commands = [
    ...(/[\r\n]/.test(password.reveal())
      ? []
      : [
          {
            argv: ["mkpasswd", "-m", method.name, "-s"],
            stdin: new Secret(`${password.reveal()}\n`),
          },
        ]),
    { argv: ["perl", "-e", PERL_CRYPT], stdin: new Secret(`${salt}\n${password.reveal()}`) },
  ];
  for (const command of commands) {
    try {
      const { stdout } = await system.exec.run({ ...command, timeoutMs: 60_000 });
      const hash = stdout.trim();
      // A library without the method answers "*0", which would lock the account (USER-13).
      if (hash.startsWith(`$${id}$`) && /^[!-9;-~]{40,}$/.test(hash)) return new Secret(hash);
    } catch (error) {
      if (!isAgentError(error, "program-missing", "exec")) throw error;
    }
  }
  throw new AgentError(
    "os-utility",
    `This system cannot produce password hashes of the method ${JSON.stringify(id)} (${method.name}); set Provisioning.PasswordCryptId=6`,
  );
}

function randomSetting(length: number): string {
  const characters = Array.from({ length: length - 1 }, () => ITOA64[randomInt(64)]);
  // The last digit of a 128 bit salt has only two (bcrypt) or four (yescrypt) free bits.
  return `${characters.join("")}.`;
}
