import { expect, test } from "bun:test";
import { isAgentUnwanted, parseOvf, redactOvf } from "../../src/provision/ovf.ts";
import { parsePublicKeys } from "../../src/provision/public-key.ts";
import { areFixturesThere, readFixture, skipWithoutFixtures } from "./fixtures.ts";

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  test.each([
    ["ovf-env.xml", true],
    ["ovf-env-2.xml", false],
  ])(
    "provisioning.md OVF-14 OVF-15 OVF-16 OVF-17 OVF-18 OVF-19 OVF-20 OVF-23 AT-30: %s",
    (name, unwanted) => {
      const document = parseOvf(readFixture(name));
      expect(document.hostName).toBe("HostName");
      expect(document.userName).toBe("UserName");
      expect(document.password?.reveal()).toBe("UserPassword");
      expect(document.disablePasswordAuthentication).toBe(false);
      expect(document.publicKeys).toHaveLength(1);
      expect(document.publicKeys[0]?.path).toBe("$HOME/UserName/.ssh/authorized_keys");
      expect(parsePublicKeys(document.publicKeys[0]!.value!)).toHaveLength(1);
      expect(document.keyPairs).toEqual([
        {
          path: "$HOME/UserName/.ssh/id_rsa",
          fingerprint: "EB0C0AB4B2D5FC35F2F0658D19F44C8283E2DD62",
        },
      ]);
      expect(document.customData).toBe("CustomData");
      expect(isAgentUnwanted(document)).toBe(unwanted);
    },
  );

  test("provisioning.md OVF-04 AT-30: ovf-env-3.xml has no wish about the agent and is refused by that name", () => {
    expect(() => parseOvf(readFixture("ovf-env-3.xml"))).toThrow("ProvisionGuestAgent not found");
  });

  test.each(["ovf-env.xml", "ovf-env-2.xml", "ovf-env-3.xml"])(
    "provisioning.md DVD-06: %s without its password is the same document",
    (name) => {
      const text = readFixture(name);
      expect(redactOvf(text)).toBe(text.replace("<UserPassword>UserPassword<", "<UserPassword>*<"));
    },
  );
}
