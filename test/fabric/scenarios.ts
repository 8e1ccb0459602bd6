import type { ExtensionDescription, Scenario } from "./scenario.ts";

/** A handler that writes its decrypted protected settings to a file, like one that uses a password. */
export const DEMO_PACKAGE = {
  name: "Fabric.Demo",
  version: "1.0.0",
  scripts: { enable: 'umask 077; protected >"/var/lib/fabric-secret"' },
} as const;

export const DEMO_SECRET = { token: "only-for-the-handler" };

export function demoExtension(sequence = 0): ExtensionDescription {
  return {
    name: DEMO_PACKAGE.name,
    version: DEMO_PACKAGE.version,
    settings: { sequence, public: { greeting: `hello ${sequence}` }, protected: DEMO_SECRET },
  };
}

/** First boot of a VM with one user, one key and one extension. */
export function firstBoot(sshKey?: string): Scenario {
  return {
    provisioning: {
      hostName: "fabricvm",
      userName: "azureuser",
      ...(sshKey === undefined ? { password: "S3cret.pass-w0rd" } : { sshKeys: [sshKey] }),
    },
    dhcp: {},
    storage: "https",
    packages: [DEMO_PACKAGE],
    goalStates: [{ incarnation: "1", extensions: [demoExtension()] }],
  };
}
