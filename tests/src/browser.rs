//! A real Chromium without a window, driven by the DevTools protocol.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::daemon::{Process, eventually};
use crate::http_client::get;
use crate::netns::Netns;

/// Where it listens for its driver.
const ADDRESS: &str = "127.0.0.1:9222";

/// A browser with one page; it ends when dropped.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket<TcpStream>,
    calls: u64,
    /// What the page asked for, by URL.
    pub asked: Vec<String>,
    /// Exceptions, and errors on the console.
    pub complaints: Vec<String>,
    _process: Process,
    _dir: TempDir,
}

impl Browser {
    /// Starts one in `netns` with an empty page.
    ///
    /// # Errors
    /// When there is none, or with its output, when it does not come up.
    pub fn start(netns: &Netns) -> Result<Self> {
        // An address that becomes valid is a network that changes, for which a browser breaks off what
        // it asks (ERR_NETWORK_CHANGED).
        eventually("all addresses to be valid", || {
            Ok(netns.is_settled()?.then_some(()))
        })?;
        let dir = tempfile::tempdir()?;
        let port = ADDRESS.rsplit(':').next().unwrap_or_default();
        let mut command = Command::new("chromium");
        command
            // Without a sandbox of its own: it shows nothing but our page, and runs as root here.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .arg(format!("--remote-debugging-port={port}"))
            .arg(format!("--user-data-dir={}", dir.path().display()))
            .arg("about:blank");
        let process = Process::spawn(netns, command)
            .context("`cargo xtask setup` installs Debian's package chromium")?;
        let socket = netns.enter(|| {
            let url = eventually("the browser to have a page", || {
                let Ok(answer) = get(&format!("http://{ADDRESS}/json/list")) else {
                    return Ok(None);
                };
                let pages: Value = serde_json::from_slice(&answer.body)?;
                let mut pages = pages.as_array().into_iter().flatten();
                let page = pages.find(|page| page["type"] == "page");
                let url = page.and_then(|page| page["webSocketDebuggerUrl"].as_str());
                Ok(url.map(str::to_owned))
            })?;
            let (socket, _answer) = tungstenite::client(url, TcpStream::connect(ADDRESS)?)?;
            Ok(socket)
        });
        let mut browser = Self {
            socket: socket.with_context(|| process.output())?,
            calls: 0,
            asked: Vec::new(),
            complaints: Vec::new(),
            _process: process,
            _dir: dir,
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol, and takes note of what happens until it has answered.
    ///
    /// # Errors
    /// When it says so.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": params});
        self.socket.send(Message::text(call.to_string()))?;
        loop {
            let Message::Text(text) = self.socket.read()? else {
                continue;
            };
            let mut said: Value = serde_json::from_str(text.as_str())?;
            if said["id"] == self.calls {
                ensure!(said["error"].is_null(), "{method}: {}", said["error"]);
                return Ok(said["result"].take());
            }
            self.note(&said);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                self.asked.push(url.to_owned());
            }
            "Runtime.exceptionThrown" => {
                self.complaints.push(params["exceptionDetails"].to_string());
            }
            "Log.entryAdded" if params["entry"]["level"] == "error" => {
                self.complaints.push(params["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Goes to a page, and waits until it is there.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", &json!({"url": url}))?;
        match opened["errorText"].as_str() {
            Some(error) => bail!("{url}: {error}"),
            // Until then there may be no body to ask about.
            None => self.until("document.readyState === 'complete'"),
        }
    }

    /// The value of an expression of JavaScript in the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "returnByValue": true});
        let mut said = self.call("Runtime.evaluate", &params)?;
        let thrown = &said["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {thrown}");
        Ok(said["result"]["value"].take())
    }

    /// The text of the element with this id.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&mut self, id: &str) -> Result<String> {
        let text = self.value(&format!("document.getElementById('{id}').innerText"))?;
        Ok(text.as_str().context("it has no text")?.to_owned())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// When that is not seen; with what the page shows.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let seen = eventually(expression, || {
            Ok((self.value(expression)? == true).then_some(()))
        });
        seen.with_context(|| {
            let page = self.value("document.body.innerText");
            format!("{page:?}\n{:?}", self.complaints)
        })
    }

    /// Gives the page a screen of so many pixels, of a phone or not, in the dark or not.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn screen(&mut self, (width, height): (u32, u32), phone: bool, dark: bool) -> Result<()> {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}))?;
        Ok(())
    }

    /// Puts a picture of the whole page into a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn picture(&mut self, path: &Path) -> Result<()> {
        let params = json!({"captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", &params)?;
        let data = picture["data"].as_str().context("no picture")?;
        Ok(std::fs::write(path, BASE64_STANDARD.decode(data)?)?)
    }
}
