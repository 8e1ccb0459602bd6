import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createHttp } from "../../../src/system/http.ts";
import { isExempt, selectProxy } from "../../../src/system/proxy.ts";
import { Root } from "../../../src/system/root.ts";

const directory = mkdtempSync(path.join(tmpdir(), "waagent-http-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const root = new Root(directory);
const http = createHttp({ root, userAgent: "WALinuxAgent/2.15.0.1", proxy: { environment: {} } });

/** A server that sends exactly these bytes, then does what `after` says. */
async function rawServer(
  answer: string,
  after: "end" | "hang" | "reset" = "end",
): Promise<{ url: string; request: () => string; stop: () => void }> {
  let seen = "";
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      seen += data.toString("latin1");
      if (!seen.includes("\r\n\r\n")) return;
      socket.write(answer);
      if (after === "end") socket.end();
      if (after === "reset") socket.resetAndDestroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    request: () => seen,
    stop: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

describe("http", () => {
  test("wire-protocol.md HTTP-04: silence ends a download that may take long, and bytes that keep coming do not", async () => {
    const silent = await rawServer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "hang");
    const request = { method: "GET", proxy: "never", deadlineMs: 5000, stallMs: 100 } as const;
    const failed = http.download({ ...request, url: silent.url }, "/silent");
    await expect(failed).rejects.toThrow("nothing came for 0.1 s");
    silent.stop();
    const server = net.createServer((socket) => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
      let sent = 0;
      const timer = setInterval(() => {
        socket.write(String(sent));
        sent += 1;
        if (sent === 5) clearInterval(timer);
      }, 40);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`;
    expect((await http.download({ ...request, url }, "/slow")).bytes).toBe(5);
    server.close();
  });

  test("wire-protocol.md HTTP-01 HTTP-02 HTTP-03: own connection, agent's name, identity encoding", async () => {
    const server = await rawServer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    const response = await http.request({
      method: "GET",
      url: `${server.url}/machine/?comp=goalstate`,
      proxy: "never",
      headers: { "x-ms-version": "2012-11-30" },
    });
    server.stop();
    const lines = server.request().split("\r\n");
    expect(lines[0]).toBe("GET /machine/?comp=goalstate HTTP/1.1");
    expect(lines).toContain("x-ms-version: 2012-11-30");
    expect(lines).toContain("User-Agent: WALinuxAgent/2.15.0.1");
    expect(lines.map((line) => line.toLowerCase())).toContain("connection: close");
    expect(lines.map((line) => line.toLowerCase())).toContain("accept-encoding: identity");
    expect(response.text()).toBe("ok");
  });

  test("wire-protocol.md HTTP-03: redirects are an ordinary status", async () => {
    const server = await rawServer(
      "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    );
    expect((await http.request({ method: "GET", url: server.url, proxy: "never" })).status).toBe(
      302,
    );
    server.stop();
  });

  const faults: readonly [string, string, "end" | "hang" | "reset", string][] = [
    ["no answer at all", "", "hang", "timed out after 0.3 s"],
    ["headers that never end", "HTTP/1.1 200 OK\r\nX-A: ", "hang", "timed out after 0.3 s"],
    [
      "a body that stops",
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
      "hang",
      "timed out after 0.3 s",
    ],
    [
      "a truncated body",
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
      "end",
      "failed|ended after",
    ],
    ["a reset", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "reset", "failed"],
    [
      "a body beyond the limit",
      `HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n${"x".repeat(5000)}`,
      "end",
      "more than the 1000 bytes allowed",
    ],
    ["garbage", "SSH-2.0-OpenSSH_9\r\n\r\n", "end", "failed"],
  ];
  test.each(faults)(
    "%s is an error that names method, origin and path, not the query",
    async (_name, answer, after, message) => {
      const server = await rawServer(answer, after);
      const url = `${server.url}/path?sig=SECRET`;
      const error = await http
        .request({ method: "GET", url, proxy: "never", deadlineMs: 300, maxBodyBytes: 1000 })
        .catch((reason: Error) => reason);
      server.stop();
      expect(error).toBeInstanceOf(Error);
      expect((error as Error).message).toMatch(new RegExp(message));
      expect((error as Error).message).toContain(`GET ${server.url}/path`);
      expect((error as Error).message).not.toContain("SECRET");
    },
  );

  test("a refused connection says so", async () => {
    await expect(
      http.request({ method: "GET", url: "http://127.0.0.1:1/x", proxy: "never" }),
    ).rejects.toThrow("GET http://127.0.0.1:1/x failed: connection refused");
  });

  test("a scratch root reaches loopback only", async () => {
    await expect(
      http.request({ method: "GET", url: "http://10.255.255.1/", proxy: "never" }),
    ).rejects.toThrow("only loopback addresses are reached");
    await expect(
      http.request({ method: "GET", url: "ftp://127.0.0.1/", proxy: "never" }),
    ).rejects.toThrow("is not an http URL");
  });

  test("a scratch root can connect an origin elsewhere without changing the request", async () => {
    const server = await rawServer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    const mapped = createHttp({
      root,
      userAgent: "x",
      proxy: { environment: {} },
      connectTo: new Map([["168.63.129.16:80", server.url.slice(7)]]),
    });
    await mapped.request({
      method: "GET",
      url: "http://168.63.129.16/?comp=versions",
      proxy: "never",
    });
    server.stop();
    expect(server.request()).toContain("GET /?comp=versions HTTP/1.1\r\n");
    expect(server.request()).toContain("Host: 168.63.129.16\r\n");
  });

  test("wire-protocol.md HGAP-07: a file is sent as it is, with its length and no content type; a missing one is named", async () => {
    const seen: [string | null, string | null, string | null, Uint8Array][] = [];
    using server = Bun.serve({
      port: 0,
      fetch: async (request) => {
        const header = (name: string) => request.headers.get(name);
        const body = await request.bytes();
        seen.push([
          header("content-type"),
          header("content-length"),
          header("transfer-encoding"),
          body,
        ]);
        return new Response("");
      },
    });
    const data = Buffer.alloc(700_000, "zip");
    writeFileSync(path.join(directory, "logs.zip"), data);
    writeFileSync(path.join(directory, "empty.zip"), "");
    const put = (file: `/${string}`) =>
      http.request({
        method: "PUT",
        url: `http://127.0.0.1:${server.port}/`,
        proxy: "never",
        body: { file },
      });
    await put("/logs.zip");
    await put("/empty.zip");
    expect(seen.map(([type, length, encoding]) => [type, length, encoding])).toEqual([
      [null, "700000", null],
      [null, "0", null],
    ]);
    expect(data.equals(seen[0]?.[3] ?? Buffer.alloc(0))).toBeTrue();
    await expect(put("/missing.zip")).rejects.toThrow("missing.zip");
  });

  test("a download is a new file of mode 0600; a failed one leaves nothing", async () => {
    const good = await rawServer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndata");
    const response = await http.download(
      { method: "GET", url: good.url, proxy: "never" },
      "/package.zip",
    );
    good.stop();
    expect(response.bytes).toBe(4);
    expect(readFileSync(path.join(directory, "package.zip"), "utf8")).toBe("data");
    expect(statSync(path.join(directory, "package.zip")).mode & 0o777).toBe(0o600);
    const bad = await rawServer("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\ndata");
    const failed = await http
      .download({ method: "GET", url: bad.url, proxy: "never" }, "/partial.zip")
      .catch((error: Error) => error);
    bad.stop();
    expect(failed).toBeInstanceOf(Error);
    expect(() => statSync(path.join(directory, "partial.zip"))).toThrow();
    const missing = await rawServer("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope");
    expect(
      await http.download({ method: "GET", url: missing.url, proxy: "never" }, "/none.zip"),
    ).toMatchObject({ status: 404, bytes: 0 });
    missing.stop();
    expect(() => statSync(path.join(directory, "none.zip"))).toThrow();
  });

  test("wire-protocol.md HTTP-13 HTTP-15 DB-12: storage goes through the proxy with credentials, the WireServer never does", async () => {
    const proxy = await rawServer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy");
    const direct = await rawServer("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ndirect");
    const environment = {
      http_proxy: `http://user:p%40ss@${proxy.url.slice(7)}`,
      no_proxy: "127.0.0.1",
    };
    const withProxy = createHttp({
      root,
      userAgent: "x",
      proxy: { host: `http://user:p%40ss@${proxy.url.slice(7)}`, environment },
    });
    expect(
      (
        await withProxy.request({ method: "GET", url: `${direct.url}/blob`, proxy: "allowed" })
      ).text(),
    ).toBe("proxy");
    expect(proxy.request()).toContain(`GET ${direct.url}/blob HTTP/1.1`);
    expect(proxy.request()).toContain(
      `Proxy-Authorization: Basic ${Buffer.from("user:p@ss").toString("base64")}`,
    );
    expect(
      (
        await withProxy.request({ method: "GET", url: `${direct.url}/machine`, proxy: "never" })
      ).text(),
    ).toBe("direct");
    proxy.stop();
    direct.stop();
  });
});

describe("proxy choice", async () => {
  const target = (url: string): URL => new URL(url);

  test("wire-protocol.md HTTP-12: HttpProxy.Host wins over the environment, lower case over upper case", () => {
    const environment = {
      http_proxy: "http://lower:1",
      HTTP_PROXY: "http://upper:2",
      HTTPS_PROXY: "secure:3",
    };
    expect(selectProxy(target("http://x/"), { host: "conf", port: 8080, environment })).toBe(
      "http://conf:8080",
    );
    expect(selectProxy(target("http://x/"), { environment })).toBe("http://lower:1");
    expect(selectProxy(target("https://x/"), { environment })).toBe("http://secure:3");
    expect(selectProxy(target("https://x/"), { environment: {} })).toBeUndefined();
    expect(() =>
      selectProxy(target("http://x/"), { host: "socks5://h:1", environment: {} }),
    ).toThrow("HttpProxy.Host");
  });

  test("provisioning.md DB-29: HttpProxy.Host alone is enough", () => {
    expect(selectProxy(target("http://x/"), { host: "proxy.example", environment: {} })).toBe(
      "http://proxy.example",
    );
  });

  test("wire-protocol.md HTTP-14 DB-12: no_proxy knows suffixes at a dot, *, addresses and CIDR", () => {
    const cases: readonly [string, string, boolean][] = [
      ["foo.com", "foo.com", true],
      ["a.foo.com", "foo.com", true],
      ["a.foo.com", ".foo.com", true],
      ["xfoo.com", "foo.com", false],
      ["A.FOO.com", "foo.COM", true],
      ["anything", "*", true],
      ["10.1.2.3", "10.1.0.0/16", true],
      ["10.2.2.3", "10.1.0.0/16", false],
      ["10.1.2.3", "10.1.2.3", true],
      ["110.1.2.3", "10.1.2.3", false],
      ["fd00::5", "fd00::/8", true],
      ["[fd00::5]", "fd00::/8", true],
      ["::1", "::1", true],
      ["foo.com", "", false],
      ["foo.com", " , bar.com,foo.com ", true],
      ["foo.com", "foo.com:8080", true],
      ["10.1.2.3", "0.0.0.0/0", true],
      ["10.1.2.3", "10.1.2.3/33", false],
      ["10.1.2.3", "nonsense/8", false],
    ];
    for (const [host, list, expected] of cases)
      expect([host, list, isExempt(host, list)]).toEqual([host, list, expected]);
  });
});
