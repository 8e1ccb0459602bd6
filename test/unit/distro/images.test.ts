import { expect, test } from "bun:test";
import { defaultFileFor } from "../../../src/config/default-file.ts";
import { detectDistro } from "../../../src/distro/detect.ts";
import { createFakeSystem } from "../../fakes/system.ts";

/** What os-release of an image says, in as few lines as matter, and what we make of it. */
interface Image {
  readonly image: string;
  readonly osRelease: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly release: string;
  readonly adapter: string;
  readonly service: string;
  readonly config: string;
  readonly file: string;
}

const line = (id: string, version: string, name: string, rest = ""): string =>
  `NAME="${name}"\nID="${id}"\nVERSION_ID="${version}"\n${rest}`;

const RHEL_LIKE = 'ID_LIKE="rhel centos fedora"\n';
const etc = "/etc/waagent.conf";
const waagent = { service: "waagent", config: etc, file: "generic" };
const ubuntu = { service: "walinuxagent", config: etc, file: "ubuntu" };
const debian = { service: "walinuxagent", config: etc, file: "debian" };
const suse = { service: "waagent", config: etc, file: "suse" };
const mariner = { service: "waagent", config: etc, file: "mariner" };

const IMAGES: readonly Image[] = [
  {
    image: "Alma 8",
    osRelease: line("almalinux", "8.10", "AlmaLinux", RHEL_LIKE),
    release: "almalinux 8.10",
    adapter: "RedHatModern",
    ...waagent,
  },
  {
    image: "Alma 9",
    osRelease: line("almalinux", "9.4", "AlmaLinux", RHEL_LIKE),
    release: "almalinux 9.4",
    adapter: "RedHatModern",
    ...waagent,
  },
  {
    image: "Azure Linux 2",
    osRelease: line("mariner", "2.0", "Common Base Linux Mariner"),
    files: { "/etc/mariner-release": "CBL-Mariner 2.0.20240301\n" },
    release: "mariner 2.0.20240301",
    adapter: "Mariner",
    ...mariner,
  },
  {
    image: "Azure Linux 3",
    osRelease: line("azurelinux", "3.0", "Microsoft Azure Linux"),
    release: "azurelinux 3.0",
    adapter: "Mariner",
    ...mariner,
  },
  {
    image: "CentOS 7.9",
    osRelease: line("centos", "7", "CentOS Linux"),
    files: { "/etc/redhat-release": "CentOS Linux release 7.9.2009 (Core)\n" },
    release: "centos 7",
    adapter: "RedHat7",
    ...waagent,
  },
  {
    image: "CentOS Stream 9",
    osRelease: line("centos", "9", "CentOS Stream"),
    release: "centos 9",
    adapter: "RedHatModern",
    ...waagent,
  },
  {
    image: "Debian 11",
    osRelease: line("debian", "11", "Debian GNU/Linux"),
    release: "debian 11",
    adapter: "DebianModern",
    ...debian,
  },
  {
    image: "Debian testing",
    osRelease: 'NAME="Debian GNU/Linux"\nID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n',
    files: { "/etc/debian_version": "forky/sid\n" },
    release: "debian forky/sid",
    adapter: "DebianModern",
    ...debian,
  },
  {
    image: "Devuan 5",
    osRelease: line("devuan", "5", "Devuan GNU/Linux", "ID_LIKE=debian\n"),
    release: "devuan 5",
    adapter: "Devuan",
    service: "waagent",
    config: etc,
    file: "devuan",
  },
  {
    image: "Flatcar",
    osRelease: line(
      "flatcar",
      "3975.2.1",
      "Flatcar Container Linux by Kinvolk",
      "ID_LIKE=coreos\n",
    ),
    release: "flatcar 3975.2.1",
    adapter: "CoreOS",
    service: "waagent",
    config: "/usr/share/oem/waagent.conf",
    file: "coreos",
  },
  {
    image: "Fedora",
    osRelease: line("fedora", "41", "Fedora Linux"),
    release: "fedora 41",
    adapter: "Fedora",
    ...waagent,
  },
  {
    image: "Kali",
    osRelease: line("kali", "2025.1", "Kali GNU/Linux", "ID_LIKE=debian\n"),
    release: "kali 2025.1",
    adapter: "DebianBase",
    ...waagent,
  },
  {
    image: "Oracle 7.9",
    osRelease: line("ol", "7.9", "Oracle Linux Server", 'ID_LIKE="fedora"\n'),
    files: { "/etc/oracle-release": "Oracle Linux Server release 7.9\n" },
    release: "oracle 7.9",
    adapter: "RedHat7",
    ...waagent,
  },
  {
    image: "Oracle 9.5",
    osRelease: line("ol", "9.5", "Oracle Linux Server", 'ID_LIKE="fedora"\n'),
    files: { "/etc/oracle-release": "Oracle Linux Server release 9.5\n" },
    release: "oracle 9.5",
    adapter: "RedHatModern",
    ...waagent,
  },
  {
    image: "RHEL 10",
    osRelease: line("rhel", "10.0", "Red Hat Enterprise Linux", 'ID_LIKE="centos fedora"\n'),
    release: "rhel 10.0",
    adapter: "RedHatModern",
    ...waagent,
  },
  {
    image: "Rocky 9",
    osRelease: line("rocky", "9.3", "Rocky Linux", RHEL_LIKE),
    release: "rocky 9.3",
    adapter: "RedHatModern",
    ...waagent,
  },
  {
    image: "SLES 12 SP5",
    osRelease: line("sles", "12.5", "SLES", 'ID_LIKE="suse"\n'),
    release: "sles 12.5",
    adapter: "SUSE",
    ...suse,
  },
  {
    image: "SLES 15 SP6",
    osRelease: line("sles", "15.6", "SLES", 'ID_LIKE="suse"\n'),
    release: "sles 15.6",
    adapter: "SUSE",
    ...suse,
  },
  {
    image: "openSUSE Leap",
    osRelease: line("opensuse-leap", "15.6", "openSUSE Leap", 'ID_LIKE="suse opensuse"\n'),
    release: "opensuse 15.6",
    adapter: "SUSE",
    ...suse,
  },
  {
    image: "Tumbleweed",
    osRelease: line(
      "opensuse-tumbleweed",
      "20260105",
      "openSUSE Tumbleweed",
      'ID_LIKE="opensuse suse"\n',
    ),
    release: "opensuse-tumbleweed 20260105",
    adapter: "Default",
    ...suse,
  },
  {
    image: "SL Micro",
    osRelease: line("sl-micro", "6.1", "SL-Micro", 'ID_LIKE="suse"\n'),
    release: "sl-micro 6.1",
    adapter: "Default",
    ...suse,
  },
  {
    image: "Ubuntu 16.04",
    osRelease: line("ubuntu", "16.04", "Ubuntu", "ID_LIKE=debian\n"),
    release: "ubuntu 16.04",
    adapter: "Ubuntu16",
    ...ubuntu,
  },
  {
    image: "Ubuntu 24.04",
    osRelease: line("ubuntu", "24.04", "Ubuntu", "ID_LIKE=debian\n"),
    release: "ubuntu 24.04",
    adapter: "Ubuntu18",
    ...ubuntu,
  },
  {
    image: "Ubuntu 25.04",
    osRelease: line("ubuntu", "25.04", "Ubuntu", "ID_LIKE=debian\n"),
    release: "ubuntu 25.04",
    adapter: "UbuntuOther",
    ...ubuntu,
  },
  {
    image: "Amazon 2023",
    osRelease: line("amzn", "2023", "Amazon Linux", 'ID_LIKE="fedora"\n'),
    release: "amzn 2023",
    adapter: "Default",
    ...waagent,
  },
  {
    image: "Alpine",
    osRelease: line("alpine", "3.21.0", "Alpine Linux"),
    release: "alpine 3.21.0",
    adapter: "Alpine",
    service: "waagent",
    config: etc,
    file: "alpine",
  },
  {
    image: "Photon",
    osRelease: line("photon", "5.0", "VMware Photon OS"),
    files: { "/etc/photon-release": "VMware Photon OS 5.0\n" },
    release: "photonos 5.0",
    adapter: "Photon",
    service: "waagent",
    config: etc,
    file: "photonos",
  },
];

test.each(IMAGES.map((image) => [image.image, image] as const))(
  "provisioning.md AT-37 AT-21 DIST-01: %s",
  async (_, image) => {
    using system = createFakeSystem();
    system.files.makeDirectory("/etc");
    system.files.write("/etc/os-release", image.osRelease);
    for (const [file, text] of Object.entries(image.files ?? {})) {
      system.files.write(file as `/${string}`, text);
    }
    const distro = await detectDistro(system);
    expect({
      release: `${distro.release.name} ${distro.release.version}`,
      adapter: distro.adapter,
      service: distro.serviceName,
      config: distro.configPath,
      file: defaultFileFor(distro.release),
    }).toEqual({
      release: image.release,
      adapter: image.adapter,
      service: image.service,
      config: image.config as never,
      file: image.file as never,
    });
  },
);
