/** The least that answers HTTP on a unix socket, beside which the agent is measured: `bare_server SOCKET`. */
const path = Deno.args[0]!;
const headers = { "content-type": "application/json" };
Deno.serve({ path, onListen() {} }, () => new Response('{"status":"ok"}\n', { headers }));
