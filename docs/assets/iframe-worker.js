// Search without a server: browsers start no Worker from a file, so the search's script runs in a hidden frame instead.
// The offline plugin would fetch the package of this name from elsewhere, which leaves pages without network unsearchable.
(function () {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.ready = new Promise((done) => {
        document.body.appendChild(this.frame);
        const inside = this.frame.contentWindow;
        window.addEventListener("message", (event) => {
          if (event.source !== inside) return;
          const message = new MessageEvent("message", { data: event.data });
          this.dispatchEvent(message);
          if (this.onmessage) this.onmessage(message);
        });
        inside.document.open();
        inside.document.write("<html><body></body></html>");
        inside.document.close();
        inside.postMessage = (data) => window.dispatchEvent(new MessageEvent("message", { data: data, source: inside }));
        inside.importScripts = (...urls) => Promise.all(urls.map((one) => IFrameWorker.load(inside, one)));
        IFrameWorker.load(inside, url).then(done);
      });
    }

    static load(inside, url) {
      return new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        script.src = url;
        script.onload = done;
        script.onerror = failed;
        inside.document.body.appendChild(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: data })));
    }

    terminate() {
      this.frame.remove();
    }
  }
  if (location.protocol === "file:") {
    window.IFrameWorker = IFrameWorker;
    window.Worker = IFrameWorker;
  }
})();
