/** Accepts TCP connections on address:port pairs given as arguments, and says "ready". */
import net from "node:net";

await Promise.all(
  process.argv.slice(2).map(
    (pair) =>
      new Promise<void>((resolve, reject) => {
        const [host = "", port = ""] = pair.split(":");
        const server = net.createServer((socket) => socket.end("here\n"));
        server.once("error", reject);
        server.listen(Number(port), host, () => resolve());
      }),
  ),
);
console.log("ready");
