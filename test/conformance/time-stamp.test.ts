import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import path from "node:path";
import { verifyToken } from "../../src/extensions/signature.ts";
import { readStampTime, readTimeStamped } from "../../src/extensions/time-stamp.ts";
import { createExec } from "../../src/system/exec.ts";
import { Root } from "../../src/system/root.ts";
import { createFakeSystem } from "../fakes/system.ts";
import { testWith } from "../support/skip.ts";
import { areFixturesThere, fixtures, skipWithoutFixtures } from "./fixtures.ts";

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  testWith({ programs: ["openssl"] })(
    "extensions.md DB-28: the time stamp in a signature that Microsoft has made ends at the root that is built in",
    async () => {
      const text = readFileSync(path.join(fixtures, "signing/vm_access_signature.txt"), "utf8");
      const { signature, token } = readTimeStamped(Buffer.from(text, "base64"));
      const at = readStampTime(token!, signature);
      expect(new Date(at).toISOString()).toBe("2025-03-31T22:01:12.000Z");
      expect(() => readStampTime(token!, signature.slice(1))).toThrow("for another signature");

      using system = createFakeSystem();
      system.files.makeDirectory("/lib");
      const verify = (seconds: number): Promise<void> =>
        verifyToken(
          { files: system.files, exec: createExec(new Root("/")) },
          { lib: "/lib", logs: "/log" },
          {
            handler: { name: "Microsoft.OSTCExtensions.VMAccessForLinux", version: "1.7.0" },
            archive: "/lib/package.zip",
            encodedSignature: text,
            opensslPath: "/usr/bin/openssl",
          },
          { token: token!, seconds },
        );
      await verify(at / 1000);
      // Its authority's certificate has ended since.
      await expect(verify(Date.UTC(2025, 10, 1) / 1000)).rejects.toThrow(/expired/);
    },
  );
}
