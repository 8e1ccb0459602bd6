import path from "node:path";
import { createSandbox, type RunResult, type Sandbox } from "./sandbox.ts";
import type { DriverOptions } from "./drivers/provision.ts";

/** A throw-away machine with a provisioning DVD, and the driver that provisions it. */
export interface ProvisionMachine extends AsyncDisposable {
  readonly box: Sandbox;
  /** Puts a document on the DVD. */
  insert(document: string): void;
  /** Runs the driver; its options have their defaults. */
  provision(options?: Partial<DriverOptions>, prefix?: readonly string[]): Promise<DriverResult>;
  /** What the platform was told so far. */
  reports(): string[][];
}

export interface DriverResult extends RunResult {
  readonly outcome: { status: string; failure?: string; unreported: boolean } | undefined;
  readonly steps: readonly string[];
}

export const VM_ID = "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8";
const REPOSITORY = path.resolve(import.meta.dir, "../..");
const REPORTS = "/run/reports";

/**
 * This kernel has no file system for DVDs, so `mount` of one is a bind of /srv/dvd. Everything else is the
 * machine's own.
 */
const MOUNT = `#!/bin/sh
case "$*" in
*udf,iso9660,vfat*) for last; do :; done; test -e /srv/dvd/ovf-env.xml || exit 32; exec /bin/mount --bind /srv/dvd "$last" ;;
esac
exec /bin/mount "$@"
`;
const EJECT = `#!/bin/sh
echo "$1" >>/run/ejected
`;

export async function createProvisionMachine(
  options: { readonly hostname?: string } = {},
): Promise<ProvisionMachine> {
  const box = await createSandbox({
    hostname: options.hostname ?? "unnamed",
    binds: [
      { from: REPOSITORY, to: "/opt/waagent-source" },
      { from: process.execPath, to: "/opt/bun" },
    ],
  });
  box.write("/run/waagent-sandbox", "");
  box.write("/usr/local/sbin/mount", MOUNT, 0o755);
  box.write("/usr/local/sbin/eject", EJECT, 0o755);
  // The machine that the tests run on has its own id; the guest's is fixed.
  box.write(
    "/usr/local/sbin/dmidecode",
    "#!/bin/sh\necho 544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8\n",
    0o755,
  );
  await box.run(["sh", "-c", ": >/dev/sr0; mkdir -p /srv/dvd"]);
  return {
    box,
    insert: (document) => box.write("/srv/dvd/ovf-env.xml", document, 0o444),
    provision: async (driver = {}, prefix = []) => {
      const result = await box.run(
        [
          ...prefix,
          "/opt/bun",
          "/opt/waagent-source/test/e2e/drivers/provision.ts",
          JSON.stringify({ reports: REPORTS, ...driver }),
        ],
        { allowFailure: true },
      );
      const lines = result.stdout.trimEnd().split("\n");
      const last = lines.at(-1) ?? "";
      return {
        ...result,
        outcome: last.startsWith("{") ? JSON.parse(last) : undefined,
        steps: lines.flatMap((line) => (line.startsWith("step ") ? [line.slice(5)] : [])),
      };
    },
    reports: () =>
      box.exists(REPORTS)
        ? box
            .read(REPORTS)
            .trimEnd()
            .split("\n")
            .map((line) => JSON.parse(line) as string[])
        : [],
    [Symbol.asyncDispose]: () => box[Symbol.asyncDispose](),
  };
}
