/**
 * <chatflow-widget>: the chat of a ChatFlow gateway as one web component. No build step, no dependencies.
 *
 *   <script src="https://chat.example.com/widget.js" defer></script>
 *   <chatflow-widget mode="bubble"></chatflow-widget>
 *
 * Attributes: src (the gateway; default: where this script came from), token (of the page's own user, where the flow knows
 * an identity provider; default: an anonymous session, kept in localStorage), uid (where the flow asks for no token;
 * default: a random one, kept in localStorage), lang (zh-CN | en; default: the flow's), title (default: the flow's), mode (inline | bubble), debug (shows
 * rung, intent and confidence). Colours: --chatflow-accent, --chatflow-radius, --chatflow-font.
 * Events: chatflow-reply and chatflow-notice, with the gateway's own object as detail.
 *
 * It needs no 'unsafe-inline' of a Content-Security-Policy: styles are constructed, and text from outside only ever
 * becomes text nodes.
 */
(() => {
  "use strict";

  const RETRIES = 4;
  const KEPT_ENTRIES = 100;
  const script = document.currentScript ?? document.querySelector('script[src$="/widget.js"]');
  const home = new URL(".", script?.src || location.href).href;

  const STRINGS = {
    "zh-CN": {
      greeting: "您好！请问有什么可以帮您？",
      placeholder: "输入您的问题…",
      input: "消息",
      send: "发送",
      hint: "Enter 发送 · Shift + Enter 换行",
      open: "打开在线客服",
      close: "关闭",
      log: "对话",
      you: "我：",
      bot: "客服：",
      agent: "人工客服",
      typing: "正在输入",
      online: "在线",
      connecting: "连接中…",
      reconnecting: "连接已断开，正在重新连接…",
      offline: "网络已断开，恢复后会自动继续",
      queued: "排队中",
      retrying: "正在重试…",
      retry: "重试",
      sources: (count) => `参考来源（${count}）`,
      rate: "请为本次服务评分",
      score: (score, scale) => `${score} 分，满分 ${scale} 分`,
      rated: "感谢您的评价！",
      latest: "查看最新消息",
      partial: "回答未完整",
      left: (count) => `还可输入 ${count} 字`,
      errors: {
        network: "发送失败，请检查网络",
        broken: "回答中断了",
        message_too_long: "消息太长，请缩短后再发",
        conversation_busy: "上一条消息还在处理中，请稍后再试",
        interrupted: "已被新的消息打断",
        shed: "当前咨询人数较多，请稍后再试",
        credential_missing: "请登录后再试",
        credential_invalid: "登录已过期，请重新登录",
        state_unavailable: "服务暂时不可用，请稍后再试",
        other: "发送失败，请稍后再试",
      },
    },
    en: {
      greeting: "Hello! How can I help you?",
      placeholder: "Type your question…",
      input: "Message",
      send: "Send",
      hint: "Enter to send · Shift + Enter for a new line",
      open: "Open chat",
      close: "Close",
      log: "Conversation",
      you: "You: ",
      bot: "Support: ",
      agent: "Our colleague",
      typing: "Typing",
      online: "Online",
      connecting: "Connecting…",
      reconnecting: "Connection lost, reconnecting…",
      offline: "You are offline; the chat goes on by itself",
      queued: "Waiting",
      retrying: "Trying again…",
      retry: "Try again",
      sources: (count) => `Sources (${count})`,
      rate: "How was this chat?",
      score: (score, scale) => `${score} of ${scale}`,
      rated: "Thank you for your rating!",
      latest: "Latest messages",
      partial: "This answer is not complete",
      left: (count) => `${count} characters left`,
      errors: {
        network: "Not sent, please check your connection",
        broken: "The answer broke off",
        message_too_long: "This message is too long, please shorten it",
        conversation_busy: "The last message is still being answered, please try again in a moment",
        interrupted: "Interrupted by a newer message",
        shed: "We are very busy right now, please try again in a moment",
        credential_missing: "Please sign in first",
        credential_invalid: "Your sign-in has expired; please sign in again",
        state_unavailable: "The service is unavailable for a moment, please try again",
        other: "Not sent, please try again later",
      },
    },
  };

  const ICONS = {
    chat: "M12 3c5 0 9 3.4 9 7.7s-4 7.7-9 7.7c-.9 0-1.8-.1-2.6-.3L4.8 20.6c-.4.2-.9-.1-.8-.6l.6-3.7C4 15 3 13 3 10.7 3 6.4 7 3 12 3Z",
    send: "M3.4 20.4 21 12 3.4 3.6 3.3 10l11 2-11 2 .1 6.4Z",
    close: "m6 6 12 12M18 6 6 18",
    down: "M12 5v14m-6-6 6 6 6-6",
    star: "m12 2.8 2.8 5.9 6.4.8-4.7 4.5 1.2 6.4L12 17.3l-5.7 3.1 1.2-6.4L2.8 9.5l6.4-.8Z",
    book: "M5 4.5A2.5 2.5 0 0 1 7.5 2H19v16H7.5A2.5 2.5 0 0 0 5 20.5m0-16v16A1.5 1.5 0 0 0 6.5 22H19",
  };

  const STYLE = `
:host {
  --accent: var(--chatflow-accent, #3056d3);
  --accent-text: #fff; --link: var(--accent);
  --surface: #fff; --canvas: #f4f6fb; --text: #1b2230; --muted: #667085; --line: #e4e8f0; --bubble: #fff;
  --danger: #c0362c; --good: #17a05d; --star: #f5a623;
  --radius: var(--chatflow-radius, 20px);
  display: block; height: 100%; min-height: 320px; color: var(--text);
  font: 15px/1.6 var(--chatflow-font, system-ui, -apple-system, "Segoe UI", "PingFang SC", "Microsoft YaHei",
    "Noto Sans CJK SC", "Noto Sans SC", sans-serif);
  -webkit-text-size-adjust: 100%;
}
:host([hidden]) { display: none; }
@media (prefers-color-scheme: dark) {
  :host {
    --accent: var(--chatflow-accent, #4468e8);
    --surface: #171b24; --canvas: #10131a; --text: #e8ebf2; --muted: #98a2b3; --line: #2a303d; --bubble: #1f2530;
    --danger: #ff8a80; --good: #3ccf86; --link: color-mix(in srgb, var(--accent) 55%, #fff);
  }
}
*, *::before, *::after { box-sizing: border-box; }
button, textarea { font: inherit; color: inherit; }
button { cursor: pointer; border: 0; background: none; padding: 0; }
svg { width: 20px; height: 20px; display: block; fill: currentColor; }
svg.stroke { fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
:focus-visible { outline: 3px solid color-mix(in srgb, var(--accent) 55%, transparent); outline-offset: 2px; }
.hidden-label { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

.panel { display: flex; flex-direction: column; height: 100%; overflow: hidden; background: var(--canvas);
  border-radius: var(--radius); position: relative; }
.head { display: flex; align-items: center; gap: 12px; padding: 14px 18px; background: var(--surface);
  border-bottom: 1px solid var(--line); padding-top: max(14px, env(safe-area-inset-top)); }
.avatar { flex: none; width: 40px; height: 40px; border-radius: 14px; display: grid; place-items: center; color: #fff;
  background: linear-gradient(135deg, var(--accent), color-mix(in srgb, var(--accent) 55%, #18c1c9)); }
.head-text { flex: 1; min-width: 0; }
.title { margin: 0; font-size: 16px; font-weight: 650; line-height: 1.3; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.status { display: flex; align-items: center; gap: 6px; font-size: 12.5px; line-height: 1.4; color: var(--muted); }
.status::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: var(--good); flex: none; }
.status[data-link="connecting"]::before { background: var(--muted); }
.status[data-link="reconnecting"]::before, .status[data-link="offline"]::before { background: var(--star); }
.icon-button { width: 36px; height: 36px; border-radius: 12px; display: grid; place-items: center; color: var(--muted); }
.icon-button:hover { background: var(--canvas); color: var(--text); }

.log { flex: 1; overflow-y: auto; overscroll-behavior: contain; padding: 20px 18px 12px; display: flex;
  flex-direction: column; gap: 14px; scrollbar-width: thin; scrollbar-color: var(--line) transparent; }
.log:focus-visible { outline-offset: -4px; border-radius: 12px; }
.entry { display: flex; flex-direction: column; max-width: min(86%, 620px); animation: rise .22s ease-out; }
.entry.user { align-self: flex-end; align-items: flex-end; }
.entry:is(.bot, .agent) { align-self: flex-start; align-items: flex-start; }
.entry[hidden] { display: none; }
.entry.notice { align-self: center; max-width: 90%; }
.bubble { padding: 10px 15px; border-radius: 18px; overflow-wrap: anywhere; }
.user .bubble { background: var(--accent); color: var(--accent-text); border-bottom-right-radius: 6px;
  white-space: pre-wrap; }
:is(.bot, .agent) .bubble { background: var(--bubble); border: 1px solid var(--line); border-bottom-left-radius: 6px;
  box-shadow: 0 1px 2px rgb(16 24 40 / 5%); }
.notice .bubble { background: color-mix(in srgb, var(--muted) 13%, transparent); color: var(--muted); font-size: 13px;
  padding: 5px 14px; text-align: center; }
.failed .bubble { background: color-mix(in srgb, var(--danger) 14%, var(--surface)); color: var(--text); }
.bubble p, .bubble ul, .bubble ol { margin: 0 0 8px; }
.bubble :is(p, ul, ol):last-child { margin-bottom: 0; }
.bubble :is(ul, ol) { padding-left: 22px; }
.bubble li { margin: 2px 0; }
.bubble a { color: var(--link); text-underline-offset: 2px; }
.bubble code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; padding: 1px 5px; border-radius: 5px;
  background: color-mix(in srgb, var(--muted) 15%, transparent); }
.meta { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; margin-top: 4px; padding: 0 6px;
  font-size: 12px; line-height: 1.5; color: var(--muted); }
.meta .error { color: var(--danger); }
.link-button { color: var(--link); font-weight: 600; border-radius: 6px; padding: 0 4px; }
.link-button:hover { text-decoration: underline; }
.debug { font: 11.5px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.debug { gap: 4px 6px; }
.debug span { padding: 1px 8px; border-radius: 20px; background: color-mix(in srgb, var(--accent) 14%, transparent);
  white-space: nowrap; }

.sources { margin-top: 8px; font-size: 13px; max-width: 100%; }
.sources summary { display: inline-flex; align-items: center; gap: 6px; list-style: none; cursor: pointer; color: var(--muted);
  padding: 4px 12px 4px 10px; border-radius: 20px; border: 1px solid var(--line); background: var(--surface);
  user-select: none; }
.sources summary::-webkit-details-marker { display: none; }
.sources summary svg { width: 15px; height: 15px; }
.sources summary:hover, .sources[open] summary { color: var(--link);
  border-color: color-mix(in srgb, var(--accent) 40%, var(--line)); }
.sources ol { margin: 8px 0 0; padding: 10px 14px 10px 34px; background: var(--surface); border: 1px solid var(--line);
  border-radius: 14px; }
.sources li { margin: 2px 0; padding-left: 2px; overflow-wrap: anywhere; }
.sources li::marker { color: var(--muted); }
.sources a { color: var(--link); text-decoration: none; }
.sources a:hover { text-decoration: underline; }

.rating { margin-top: 8px; padding: 12px 16px; background: var(--surface); border: 1px solid var(--line);
  border-radius: 16px; }
.rating .label { font-size: 13px; color: var(--muted); margin-bottom: 4px; }
.stars { display: flex; flex-wrap: wrap; gap: 2px; }
.stars button { padding: 4px; border-radius: 10px; color: color-mix(in srgb, var(--muted) 35%, transparent); transition: color .12s, transform .12s; }
.stars svg { width: 26px; height: 26px; }
.stars button:hover { transform: scale(1.12); }
.stars button.on, .stars:not(.done):hover button:has(~ button:hover), .stars:not(.done) button:hover { color: var(--star); }
.stars.done button { cursor: default; transform: none; }

.typing { display: inline-flex; gap: 5px; padding: 7px 2px; }
.typing i { width: 7px; height: 7px; border-radius: 50%; background: var(--muted); animation: pulse 1.2s infinite ease-in-out; }
.typing i:nth-child(2) { animation-delay: .15s; }
.typing i:nth-child(3) { animation-delay: .3s; }
.latest { position: absolute; left: 50%; bottom: 100%; transform: translate(-50%, -10px); width: 36px; height: 36px;
  border-radius: 50%; display: grid; place-items: center; color: var(--accent); background: var(--surface);
  border: 1px solid var(--line); box-shadow: 0 4px 14px rgb(16 24 40 / 16%); }
.latest[hidden] { display: none; }

.composer { position: relative; padding: 12px 16px; padding-bottom: max(12px, env(safe-area-inset-bottom));
  background: var(--surface); border-top: 1px solid var(--line); }
.field { display: flex; align-items: flex-end; gap: 8px; padding: 6px 6px 6px 16px; border: 1.5px solid var(--line);
  border-radius: 24px; background: var(--canvas); transition: border-color .15s, box-shadow .15s; }
.field:focus-within { border-color: var(--accent); box-shadow: 0 0 0 4px color-mix(in srgb, var(--accent) 14%, transparent); }
textarea { flex: 1; min-width: 0; border: 0; outline: 0; background: none; resize: none; padding: 6px 0; height: 36px;
  max-height: 140px; line-height: 24px; font-size: 15px; }
textarea:focus-visible { outline: 0; }
textarea::placeholder { color: var(--muted); opacity: .85; }
.send { flex: none; width: 36px; height: 36px; border-radius: 50%; display: grid; place-items: center; color: var(--accent-text);
  background: var(--accent); transition: opacity .15s, transform .1s; }
.send:disabled { opacity: .35; cursor: default; }
.send:not(:disabled):active { transform: scale(.92); }
.send svg { width: 18px; height: 18px; margin-left: 2px; }
.foot { display: flex; justify-content: space-between; gap: 12px; padding: 6px 8px 0; font-size: 11.5px; line-height: 1.4;
  color: var(--muted); }
.foot .over { color: var(--danger); }

:host([mode="bubble"]) { position: fixed; z-index: 2147483000; right: max(20px, env(safe-area-inset-right));
  bottom: max(20px, env(safe-area-inset-bottom)); height: auto; min-height: 0; }
:host([mode="bubble"]) .panel { position: absolute; right: 0; bottom: 76px; width: 400px; height: min(660px, 100dvh - 120px);
  border: 1px solid var(--line); box-shadow: 0 20px 60px rgb(16 24 40 / 24%); transform-origin: bottom right;
  transition: opacity .16s, transform .16s, visibility 0s; }
:host([mode="bubble"]) .panel:not(.open) { opacity: 0; transform: translateY(12px) scale(.97); visibility: hidden;
  transition: opacity .16s, transform .16s, visibility 0s .16s; }
.launcher { display: none; }
:host([mode="bubble"]) .launcher { display: grid; place-items: center; position: relative; width: 60px; height: 60px;
  border-radius: 50%; color: #fff; background: linear-gradient(135deg, var(--accent),
    color-mix(in srgb, var(--accent) 55%, #18c1c9)); box-shadow: 0 10px 30px rgb(16 24 40 / 28%); transition: transform .15s; }
.launcher:hover { transform: translateY(-2px) scale(1.04); }
.launcher svg { width: 28px; height: 28px; }
.unread { position: absolute; top: -2px; right: -2px; min-width: 20px; height: 20px; padding: 0 5px; border-radius: 10px;
  background: #e5484d; color: #fff; font-size: 12px; line-height: 20px; text-align: center; }
.unread:empty { display: none; }
:host(:not([mode="bubble"])) .dismiss { display: none; }
@media (max-width: 520px) {
  .log { padding: 16px 14px 10px; }
  .entry { max-width: 90%; }
  textarea { font-size: 16px; }
  .composer { padding: 10px 12px; padding-bottom: max(10px, env(safe-area-inset-bottom)); }
  .hint { display: none; }
  .foot:not(:has(.over, .near)) { display: none; }
  :host([mode="bubble"]) .panel { position: fixed; inset: 0; width: auto; height: 100dvh; border: 0; border-radius: 0; }
  :host([mode="bubble"]) .panel.open ~ .launcher { display: none; }
}
@keyframes rise { from { opacity: 0; transform: translateY(6px); } }
@keyframes pulse { 0%, 60%, 100% { opacity: .3; transform: none; } 30% { opacity: 1; transform: translateY(-3px); } }
@media (prefers-reduced-motion: reduce) { *, *::before { animation: none !important; transition: none !important; } }
`;

  /** Make an element: properties, then children (nodes or strings, which become text). */
  function element(name, properties = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in node) node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function icon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    if (["close", "down", "book"].includes(name)) svg.setAttribute("class", "stroke");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
  }

  function link(url, ...children) {
    return element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...children);
  }

  const isWebAddress = (url) => /^https?:\/\//i.test(url ?? "");
  const INLINE =
    /\*\*(?<bold>[^*]+(?:\*[^*]+)*)\*\*|`(?<code>[^`]+)`|\[(?<label>[^\]]+)\]\((?<target>https?:\/\/[^\s)]+)\)|(?<bare>https?:\/\/[\w\-.~:/?#@!$&*+,;=%]*[\w\-~/#@$&*+=%])/gi;

  /** Bold, code and links of one line, as nodes; everything else is text. */
  function inline(text) {
    const nodes = [];
    let end = 0;
    for (const match of text.matchAll(INLINE)) {
      const { bold, code, label, target, bare } = match.groups;
      nodes.push(text.slice(end, match.index));
      if (bold) nodes.push(element("strong", {}, ...inline(bold)));
      else if (code) nodes.push(element("code", {}, code));
      else if (target) nodes.push(link(target, label));
      else nodes.push(link(bare, bare));
      end = match.index + match[0].length;
    }
    nodes.push(text.slice(end));
    return nodes.filter((node) => node !== "");
  }

  const ITEM = /^\s*(?:[-*•]|(\d+)[.、)])\s+(.*)$/;

  /** Paragraphs, lists, bold, code and links of a reply. Models write more of Markdown; the rest stays text. */
  function markdown(text) {
    const blocks = [];
    let list = null;
    let paragraph = null;
    for (const line of text.split("\n")) {
      const item = ITEM.exec(line);
      const heading = /^#{1,6}\s+(.*)$/.exec(line);
      if (item) {
        const kind = item[1] ? "ol" : "ul";
        if (list?.localName !== kind) {
          list = element(kind, kind === "ol" ? { start: Number(item[1]) } : {});
          blocks.push(list);
        }
        list.append(element("li", {}, ...inline(item[2])));
        paragraph = null;
      } else if (line.trim() === "") {
        list = paragraph = null;
      } else if (heading) {
        blocks.push(element("p", {}, element("strong", {}, ...inline(heading[1]))));
        list = paragraph = null;
      } else if (paragraph) {
        paragraph.append(element("br"), ...inline(line));
      } else {
        paragraph = element("p", {}, ...inline(line));
        blocks.push(paragraph);
        list = null;
      }
    }
    return blocks;
  }

  /** Storage that a browser may refuse; the chat then forgets with the page. */
  function recall(storage, key) {
    try {
      return window[storage].getItem(key);
    } catch {
      return null;
    }
  }

  function keep(storage, key, value) {
    try {
      window[storage].setItem(key, value);
    } catch {
      // Private windows and full disks: nothing else depends on it.
    }
  }

  const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  /** Whether outbox id `a` comes after `b`: milliseconds, then a number. */
  function isAfter(a, b) {
    const [aMs, aNumber = 0] = a.split("-").map(Number);
    const [bMs, bNumber = 0] = b.split("-").map(Number);
    return aMs > bMs || (aMs === bMs && aNumber > bNumber);
  }

  class Problem extends Error {
    constructor({ code = "other", detail = "", retryable = false, retry_after_s = null, user_text = null }) {
      super(detail || code);
      Object.assign(this, { code, retryable, retryAfterS: retry_after_s, userText: user_text });
    }
  }

  /** The gateway's HTTP interface. */
  class Gateway {
    #config = null;
    #renewal = null;

    /** `ownToken` gives the token of the page's own user, or null. */
    constructor(base, ownToken) {
      this.base = base.replace(/\/+$/, "");
      this.#ownToken = ownToken;
    }

    #ownToken;

    async config() {
      this.#config ??= this.#fetch("/v1/config", {}).then((response) => response.json());
      try {
        return await this.#config;
      } catch (problem) {
        this.#config = null;
        throw problem;
      }
    }

    async rate(uid, score, messageId) {
      return (await this.#post("/v1/ratings", uid, { score, message_id: messageId }, {})).json();
    }

    /** Send a message; deltas go to `onDelta`, the reply is returned. Problem when there is none. */
    async chat(uid, messageId, text, onDelta, signal) {
      const options = { headers: { accept: "text/event-stream" }, signal };
      const response = await this.#post("/v1/chat", uid, { message_id: messageId, text }, options);
      try {
        for await (const { kind, data } of events(response.body)) {
          if (kind === "delta") onDelta(data.text);
          else if (kind === "reply") return data;
          else if (kind === "error") throw new Problem(data);
        }
      } catch (error) {
        if (error instanceof Problem || signal.aborted) throw error;
      }
      throw new Problem({ code: "broken", retryable: true });
    }

    async events(uid, lastId) {
      const token = await this.#token();
      const query = new URLSearchParams(token ? { access_token: token } : { uid });
      if (lastId) query.set("last_event_id", lastId);
      return new EventSource(`${this.base}/v1/events?${query}`);
    }

    /** After a refusal that browsers do not tell apart: replace a session that is no longer good. */
    async checked() {
      if (!this.#ownToken() && (await this.config()).has_sessions) await this.renew();
    }

    /** A fresh token for the same visitor, or for a new one where the old token is no longer good. */
    renew() {
      this.#renewal ??= this.#begin().finally(() => (this.#renewal = null));
      return this.#renewal;
    }

    async #begin() {
      const old = this.#session()?.token;
      const options = { method: "POST", headers: old ? { authorization: `Bearer ${old}` } : {} };
      try {
        const session = await (await this.#fetch("/v1/sessions", options)).json();
        const renewAtMs = (Date.now() + session.expires_at_ms) / 2;
        keep("localStorage", this.#key, JSON.stringify({ uid: session.uid, token: session.token, renewAtMs }));
        return session.token;
      } catch (problem) {
        if (!old || problem.code !== "credential_invalid") throw problem;
        keep("localStorage", this.#key, "null");
        return this.#begin();
      }
    }

    get #key() {
      return `chatflow:session:${this.base}`;
    }

    #session() {
      return JSON.parse(recall("localStorage", this.#key) ?? "null");
    }

    /** The visitor's token; null where the flow asks for none. */
    async #token() {
      const own = this.#ownToken();
      if (own || !(await this.config()).has_sessions) return own;
      const session = this.#session();
      return session && session.renewAtMs > Date.now() ? session.token : this.renew();
    }

    async #post(path, uid, content, options, isAgain = false) {
      const token = await this.#token();
      const headers = { "content-type": "application/json", ...options.headers };
      if (token) headers.authorization = `Bearer ${token}`;
      const body = JSON.stringify(token ? content : { uid, ...content });
      try {
        return await this.#fetch(path, { ...options, method: "POST", headers, body });
      } catch (problem) {
        // The server's key was replaced: the visitor begins anew.
        if (isAgain || problem.code !== "credential_invalid" || this.#ownToken()) throw problem;
        await this.renew();
        return this.#post(path, uid, content, options, true);
      }
    }

    async #fetch(path, options) {
      let response;
      try {
        response = await fetch(this.base + path, options);
      } catch (error) {
        if (options.signal?.aborted) throw error;
        throw new Problem({ code: "network", retryable: true });
      }
      if (response.ok) return response;
      // A proxy's own error page is no problem object; its 5xx may pass.
      throw new Problem(await response.json().catch(() => ({ retryable: response.status >= 500 })));
    }
  }

  /** Server-sent events of a fetch body. */
  async function* events(body) {
    let buffer = "";
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        buffer += value;
        const frames = buffer.split("\n\n");
        buffer = frames.pop();
        for (const frame of frames) {
          const fields = Object.fromEntries(frame.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
          if (fields.data) yield { kind: fields.event, data: JSON.parse(fields.data) };
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  class ChatflowWidget extends HTMLElement {
    static observedAttributes = ["lang", "title", "debug", "mode"];

    #config = { title: "", greeting: null, locale: navigator.language, rating_scale: 5, max_text_length: 2000 };
    #entries = [];
    #lastId = "";
    #isBusy = false;
    #link = "connecting";
    #unread = 0;
    #failures = 0;
    #follows = true;
    #parts = null;
    #greeting = null;
    #gateway;
    #leaving;
    #source = null;
    #attempt = 0;
    #timer;
    #ownUid;

    connectedCallback() {
      this.#parts ??= this.#build();
      this.#gateway = new Gateway(this.getAttribute("src") || home, () => this.getAttribute("token"));
      this.#leaving = new AbortController();
      const { signal } = this.#leaving;
      window.addEventListener("online", () => this.#connect(), { signal });
      window.addEventListener("offline", () => this.#setLink("offline"), { signal });
      this.#restore();
      this.#label();
      this.#configure();
      if (this.#isOpen()) this.#connect();
    }

    disconnectedCallback() {
      this.#leaving.abort();
      this.#source?.close();
      this.#source = null;
      clearTimeout(this.#timer);
    }

    attributeChangedCallback() {
      if (this.#parts) this.#label();
    }

    /** Open the panel of a bubble. */
    open() {
      const { panel, launcher, input } = this.#parts;
      panel.classList.add("open");
      launcher.setAttribute("aria-expanded", "true");
      this.#unread = 0;
      this.#parts.unread.textContent = "";
      if (!this.#source) this.#connect();
      this.#scroll(true);
      input.focus();
    }

    /** Close it; the conversation goes on. */
    close() {
      const { panel, launcher } = this.#parts;
      panel.classList.remove("open");
      launcher.setAttribute("aria-expanded", "false");
      launcher.focus();
    }

    get #uid() {
      const given = this.getAttribute("uid");
      if (given) return given;
      let uid = recall("localStorage", "chatflow:uid");
      if (!uid) {
        uid = this.#ownUid ??= `web-${newId()}`;
        keep("localStorage", "chatflow:uid", uid);
      }
      return uid;
    }

    get #strings() {
      const language = this.getAttribute("lang") || this.#config.locale || "";
      return STRINGS[language.toLowerCase().startsWith("zh") ? "zh-CN" : "en"];
    }

    #isOpen() {
      return this.getAttribute("mode") !== "bubble" || this.#parts.panel.classList.contains("open");
    }

    #build() {
      const root = this.attachShadow({ mode: "open" });
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
      const parts = {
        title: element("h2", { className: "title" }),
        status: element("div", { className: "status", role: "status" }),
        dismiss: element("button", { type: "button", className: "icon-button dismiss" }, icon("close")),
        log: element("div", { className: "log", role: "log", tabIndex: 0, "aria-live": "polite" }),
        latest: element("button", { type: "button", className: "latest", hidden: true }, icon("down")),
        inputLabel: element("label", { className: "hidden-label", htmlFor: "input" }),
        input: element("textarea", { id: "input", rows: 1, enterKeyHint: "send", autocomplete: "off" }),
        send: element("button", { type: "submit", className: "send", disabled: true }, icon("send")),
        hint: element("span", { className: "hint" }),
        count: element("span", { "aria-live": "polite" }),
        launcher: element("button", { type: "button", className: "launcher", "aria-expanded": "false" }, icon("chat")),
        unread: element("span", { className: "unread" }),
      };
      parts.launcher.append(parts.unread);
      parts.form = element(
        "form",
        { className: "composer" },
        parts.latest,
        parts.inputLabel,
        element("div", { className: "field" }, parts.input, parts.send),
        element("div", { className: "foot" }, parts.hint, parts.count),
      );
      const avatar = element("div", { className: "avatar" }, icon("chat"));
      const head = element(
        "header",
        { className: "head" },
        avatar,
        element("div", { className: "head-text" }, parts.title, parts.status),
        parts.dismiss,
      );
      // The empty title keeps the host's title attribute from showing as a tooltip over the whole chat.
      parts.panel = element("section", { className: "panel", title: "" }, head, parts.log, parts.form);
      root.append(parts.panel, parts.launcher);
      this.#listen(parts);
      return parts;
    }

    #listen(parts) {
      parts.form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.#submit();
      });
      parts.input.addEventListener("keydown", (event) => {
        // While an input method composes, Enter picks a candidate.
        if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
        event.preventDefault();
        this.#submit();
      });
      parts.input.addEventListener("input", () => this.#measure());
      parts.panel.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && this.getAttribute("mode") === "bubble") this.close();
      });
      parts.launcher.addEventListener("click", () => (parts.panel.classList.contains("open") ? this.close() : this.open()));
      parts.dismiss.addEventListener("click", () => this.close());
      parts.latest.addEventListener("click", () => this.#scroll(true));
      parts.log.addEventListener("scroll", () => {
        const { scrollHeight, scrollTop, clientHeight } = parts.log;
        this.#follows = scrollHeight - scrollTop - clientHeight < 60;
        if (this.#follows) parts.latest.hidden = true;
      });
    }

    async #configure() {
      for (let wait = 1000; ; wait = Math.min(wait * 2, 15000)) {
        try {
          this.#config = await this.#gateway.config();
          this.#label();
          return;
        } catch {
          await this.#pause(wait);
          if (this.#leaving.signal.aborted) return;
        }
      }
    }

    /** Write every text of the frame, and the entries again, in the language that holds now. */
    #label() {
      const { title, dismiss, log, latest, inputLabel, input, send, hint, launcher, panel } = this.#parts;
      const strings = this.#strings;
      title.textContent = this.getAttribute("title") || this.#config.title || "ChatFlow";
      panel.lang = strings === STRINGS.en ? "en" : "zh-CN";
      panel.setAttribute("role", this.getAttribute("mode") === "bubble" ? "dialog" : "region");
      panel.setAttribute("aria-label", title.textContent);
      log.setAttribute("aria-label", strings.log);
      for (const [button, text] of [[dismiss, strings.close], [latest, strings.latest], [send, strings.send], [launcher, strings.open]]) {
        button.setAttribute("aria-label", text);
      }
      inputLabel.textContent = strings.input;
      input.placeholder = strings.placeholder;
      hint.textContent = strings.hint;
      this.#setLink(this.#link);
      this.#greet();
      for (const entry of this.#entries) this.#render(entry);
      this.#measure();
    }

    #greet() {
      const text = this.#config.greeting || this.#strings.greeting;
      this.#greeting ??= { kind: "bot", node: element("div") };
      this.#parts.log.prepend(this.#greeting.node);
      this.#greeting.reply = { text };
      this.#render(this.#greeting);
    }

    #measure() {
      const { input, send, count } = this.#parts;
      input.style.height = "36px";
      input.style.height = `${Math.min(input.scrollHeight, 140)}px`;
      const left = this.#config.max_text_length - [...input.value].length;
      const isNear = left < this.#config.max_text_length / 10;
      count.className = left < 0 ? "over" : isNear ? "near" : "";
      count.textContent = isNear ? this.#strings.left(left) : "";
      send.disabled = input.value.trim() === "" || left < 0;
    }

    #submit() {
      const { input, send } = this.#parts;
      if (send.disabled) return;
      this.#add({ kind: "user", id: newId(), text: input.value.trim(), state: "queued", atMs: Date.now() });
      input.value = "";
      this.#measure();
      this.#scroll(true);
      this.#save();
      this.#work();
    }

    /** Send what waits, one message after the other. */
    async #work() {
      if (this.#isBusy) return;
      this.#isBusy = true;
      for (let entry; !this.#leaving.signal.aborted && (entry = this.#entries.find(({ state }) => state === "queued")); ) {
        await this.#deliver(entry);
      }
      this.#isBusy = false;
      // Taken out of the page and put back meanwhile: the new stay goes on with what is left.
      if (!this.#leaving.signal.aborted && this.#entries.some(({ state }) => state === "queued")) this.#work();
    }

    async #deliver(entry) {
      const leaving = this.#leaving.signal;
      entry.state = "sending";
      for (let attempt = 0; ; attempt += 1) {
        this.#render(entry);
        const answer = this.#answerTo(entry.id) ?? this.#add({ kind: "bot", id: entry.id, text: "" }, entry);
        try {
          await this.#exchange(entry, answer);
          entry.state = "sent";
        } catch (problem) {
          if (leaving.aborted) {
            // It goes out again, under its old id, once the widget is back.
            entry.state = "queued";
            return;
          }
          if (answer.reply) entry.state = "sent";
          else if (problem.retryable && attempt < RETRIES) {
            entry.isRetrying = true;
            await this.#pause(problem.retryAfterS ? problem.retryAfterS * 1000 : 500 * 2 ** attempt);
            if (!answer.reply) continue;
            entry.state = "sent";
          } else {
            entry.state = "failed";
            entry.code = problem.code;
            entry.said = problem.userText;
            this.#remove(answer);
          }
        }
        entry.isRetrying = false;
        this.#render(entry);
        this.#save();
        return;
      }
    }

    async #exchange(entry, answer) {
      let isFirst = true;
      const onDelta = (text) => {
        // A repeated attempt begins its answer anew.
        answer.text = isFirst ? text : answer.text + text;
        isFirst = false;
        this.#paint(answer);
      };
      const { signal } = this.#leaving;
      const reply = await this.#gateway.chat(this.#uid, entry.id, entry.text, onDelta, signal);
      entry.isRetrying = false;
      this.#take(reply);
    }

    #answerTo(messageId) {
      return this.#entries.find(({ kind, id }) => kind === "bot" && id === messageId);
    }

    /** A whole reply, from the message's own stream or from the events; the second of the two is dropped. */
    #take(reply) {
      let entry = this.#answerTo(reply.message_id);
      if (entry?.reply?.id === reply.id) return;
      entry ??= this.#add({ kind: "bot", id: reply.message_id });
      entry.reply = reply;
      this.#render(entry);
      this.#seen(reply.id);
      this.#save();
      this.#tell("chatflow-reply", reply);
    }

    #seen(id) {
      if (!this.#lastId || isAfter(id, this.#lastId)) this.#lastId = id;
      this.#scroll(false);
      if (this.#isOpen()) return;
      this.#unread += 1;
      this.#parts.unread.textContent = String(this.#unread);
    }

    #tell(name, detail) {
      this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
    }

    async #connect() {
      if (this.#leaving.signal.aborted) return;
      clearTimeout(this.#timer);
      this.#source?.close();
      this.#source = null;
      const attempt = (this.#attempt += 1);
      let source;
      try {
        source = await this.#gateway.events(this.#uid, this.#lastId);
      } catch {
        if (attempt === this.#attempt) this.#connectLater();
        return;
      }
      // Another attempt has begun meanwhile, or the widget has left the page.
      if (attempt !== this.#attempt || this.#leaving.signal.aborted) {
        source.close();
        return;
      }
      this.#source = source;
      source.addEventListener("open", () => {
        this.#failures = 0;
        this.#setLink("online");
      });
      source.addEventListener("reply", ({ data }) => this.#take(JSON.parse(data)));
      source.addEventListener("notice", ({ data }) => this.#notice(JSON.parse(data)));
      source.addEventListener("error", () => {
        this.#setLink(navigator.onLine ? "reconnecting" : "offline");
        // Browsers give up after an HTTP error; it may pass, so the widget does not.
        if (source.readyState === EventSource.CLOSED) this.#connectLater(true);
      });
    }

    /** Connect again after a while. `isRefused`: a token that is no longer good may be why. */
    #connectLater(isRefused = false) {
      this.#failures += 1;
      this.#setLink(navigator.onLine ? "reconnecting" : "offline");
      const pauseMs = Math.min(1000 * 2 ** this.#failures, 30000) * (0.5 + Math.random() / 2);
      this.#timer = setTimeout(async () => {
        if (isRefused) await this.#gateway.checked().catch(() => {});
        this.#connect();
      }, pauseMs);
    }

    #notice(notice) {
      if (this.#lastId && !isAfter(notice.id, this.#lastId)) return;
      this.#add({ kind: notice.kind === "agent" ? "agent" : "notice", notice });
      this.#seen(notice.id);
      this.#save();
      this.#tell("chatflow-notice", notice);
    }

    #setLink(state) {
      this.#link = state;
      this.#parts.status.dataset.link = state;
      this.#parts.status.textContent = this.#strings[state];
    }

    /** Wait, but not longer than until the network is back. */
    #pause(ms) {
      return new Promise((resolve) => {
        const done = () => {
          clearTimeout(timer);
          window.removeEventListener("online", done);
          resolve();
        };
        const timer = setTimeout(done, ms);
        window.addEventListener("online", done);
      });
    }

    /** Show an entry, at the end or right below another. */
    #add(entry, above = this.#entries.at(-1)) {
      entry.node = element("div");
      if (above) above.node.after(entry.node);
      else this.#parts.log.append(entry.node);
      this.#entries.splice(this.#entries.indexOf(above) + 1 || this.#entries.length, 0, entry);
      this.#render(entry);
      this.#scroll(entry.kind === "user");
      return entry;
    }

    #remove(entry) {
      entry.node.remove();
      this.#entries.splice(this.#entries.indexOf(entry), 1);
    }

    /** Render a streaming answer at most once a frame. */
    #paint(entry) {
      entry.frame ??= requestAnimationFrame(() => {
        entry.frame = undefined;
        this.#render(entry);
        this.#scroll(false);
      });
    }

    #render(entry) {
      const isOpen = entry.node.querySelector("details")?.open;
      entry.node.className = `entry ${entry.kind} ${entry.state ?? ""}`;
      // A message that was passed on to a person has an empty reply: there is nothing to show for it.
      entry.node.hidden = entry.reply?.origin === "handoff" && !entry.reply.text;
      entry.node.replaceChildren(...this[`_${entry.kind}`](entry));
      const details = entry.node.querySelector("details");
      if (details && isOpen) details.open = true;
    }

    _user(entry) {
      const strings = this.#strings;
      const meta = element("div", { className: "meta" });
      if (entry.isRetrying) meta.append(strings.retrying);
      else if (entry.state === "queued" && this.#isBusy) meta.append(strings.queued);
      else if (entry.state === "failed") {
        const retry = element("button", { type: "button", className: "link-button" }, strings.retry);
        retry.addEventListener("click", () => {
          entry.state = "queued";
          this.#render(entry);
          this.#work();
        });
        const text = entry.said ?? strings.errors[entry.code] ?? strings.errors.other;
        meta.append(element("span", { className: "error", role: "alert" }, text), retry);
      }
      const label = element("span", { className: "hidden-label" }, strings.you);
      return [element("div", { className: "bubble" }, label, entry.text), meta.childNodes.length ? meta : ""];
    }

    _bot(entry) {
      const strings = this.#strings;
      const { reply } = entry;
      const label = element("span", { className: "hidden-label" }, strings.bot);
      const bubble = element("div", { className: "bubble" }, label);
      entry.node.setAttribute("aria-busy", String(!reply));
      if (reply || entry.text) bubble.append(...markdown(reply ? reply.text : entry.text));
      else bubble.append(element("span", { className: "typing", role: "img", "aria-label": strings.typing }, element("i"), element("i"), element("i")));
      if (!reply) return [bubble];
      const meta = element("div", { className: "meta" });
      if (reply.is_partial) meta.append(element("span", { className: "error" }, strings.partial));
      return [
        bubble,
        meta.childNodes.length ? meta : "",
        reply.citations?.length ? this.#sources(reply.citations) : "",
        reply.rating_scale ? this.#rating(entry, reply) : "",
        reply.rung && this.hasAttribute("debug") ? debugLine(reply) : "",
      ];
    }

    /** What a person says in the place of the bot. */
    _agent({ notice }) {
      const strings = this.#strings;
      const name = notice.agent && notice.agent !== "agent" ? notice.agent : strings.agent;
      const label = element("span", { className: "hidden-label" }, strings.bot);
      const meta = element("div", { className: "meta" }, name);
      return [element("div", { className: "bubble" }, label, ...markdown(notice.text)), meta];
    }

    _notice({ notice }) {
      return [element("div", { className: "bubble" }, notice.text)];
    }

    #sources(citations) {
      const items = citations.map(({ title, url, number }) =>
        element("li", {}, number ? `[${number}] ` : "", isWebAddress(url) ? link(url, title) : title),
      );
      const summary = element("summary", {}, icon("book"), this.#strings.sources(citations.length));
      return element("details", { className: "sources" }, summary, element("ol", {}, ...items));
    }

    #rating(entry, reply) {
      const strings = this.#strings;
      const label = element("div", { className: "label", role: "status" }, entry.score ? strings.rated : strings.rate);
      const stars = element("div", { className: `stars${entry.score ? " done" : ""}`, role: "group", "aria-label": strings.rate });
      for (let score = 1; score <= reply.rating_scale; score += 1) {
        const star = element("button", { type: "button", "aria-label": strings.score(score, reply.rating_scale) }, icon("star"));
        star.classList.toggle("on", score <= (entry.score ?? 0));
        star.setAttribute("aria-pressed", String(score === entry.score));
        star.disabled = Boolean(entry.score);
        star.addEventListener("click", () => this.#rate(entry, reply, score, label));
        stars.append(star);
      }
      return element("div", { className: "rating" }, label, stars);
    }

    async #rate(entry, reply, score, label) {
      try {
        await this.#gateway.rate(this.#uid, score, reply.message_id);
      } catch (problem) {
        label.textContent = this.#strings.errors[problem.code] ?? this.#strings.errors.other;
        return;
      }
      entry.score = score;
      this.#render(entry);
      this.#save();
      this.#parts.input.focus();
    }

    /** Follow the conversation, unless the user is reading further up. */
    #scroll(isForced) {
      const { log, latest } = this.#parts;
      if (isForced || this.#follows) log.scrollTop = log.scrollHeight;
      else latest.hidden = false;
    }

    get #key() {
      return `chatflow:${this.#gateway.base}:${this.#uid}`;
    }

    #save() {
      const kept = this.#entries.filter(({ kind, reply, state }) => kind !== "bot" || reply || state).slice(-KEPT_ENTRIES);
      const entries = kept.map(({ node, frame, isRetrying, ...entry }) => entry);
      keep("sessionStorage", this.#key, JSON.stringify({ lastId: this.#lastId, entries }));
    }

    #restore() {
      if (this.#entries.length) {
        this.#work();
        return;
      }
      const { lastId = "", entries = [] } = JSON.parse(recall("sessionStorage", this.#key) ?? "{}");
      this.#lastId = lastId;
      for (const entry of entries) {
        // A message that the reload cut off goes out again under its old id, and so takes effect once.
        if (entry.state === "sending") entry.state = "queued";
        this.#add(entry);
      }
      this.#scroll(true);
      this.#work();
    }
  }

  function debugLine({ rung, origin, scene, intent, confidence, model }) {
    const sure = confidence === null || confidence === undefined ? "" : ` ${(confidence * 100).toFixed(1)} %`;
    const facts = [rung, origin, intent && `${intent}${sure}`, scene, model].filter(Boolean);
    return element("div", { className: "meta debug" }, ...facts.map((fact) => element("span", {}, fact)));
  }

  if (!customElements.get("chatflow-widget")) customElements.define("chatflow-widget", ChatflowWidget);
})();
