"""What a newcomer sees in the browser, in headless Chromium with no network but the shop.

Usage: browser.py URL FOLDER. Ends with 0 and a line that says what was looked at, or with 1 and the
reason; screenshots and the browser's log are left in FOLDER.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as expect
from selenium.webdriver.support.ui import WebDriverWait

WAIT_MAX_S = 20
# Which operation "Try it out" is tried on, by method and path.
LIST_PRODUCTS = ("get", "/v1/products")
# What the browser's own start page and the shop's pages may load besides the shop.
LOCAL_SCHEMES = {"data", "blob", "about", "chrome"}


def start(profile: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--window-size=1280,1600",
        f"--user-data-dir={profile}",
        "--disable-background-networking",
        # No name but the shop's own address resolves: what a page fetches from elsewhere fails.
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses root.
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    return webdriver.Chrome(options=options, service=service)


class Browser:
    """The driver with what the page must not do: ask another host, or log an error."""

    def __init__(self, driver: webdriver.Chrome, url: str, folder: Path):
        self.driver, self.url, self.folder = driver, url, folder
        self.wait = WebDriverWait(driver, WAIT_MAX_S)

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def visible(self, selector: str):
        locator = (By.CSS_SELECTOR, selector)
        return self.wait.until(expect.visibility_of_element_located(locator), f"{selector} is not visible")

    def click(self, selector: str) -> None:
        locator = (By.CSS_SELECTOR, selector)
        element = self.wait.until(expect.element_to_be_clickable(locator), f"{selector} cannot be clicked")
        # Scrolled first: Swagger UI opens sections with an animation.
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.wait.until(expect.element_to_be_clickable(locator)).click()

    def screenshot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.folder / f"browser-{name}.png"))

    def check_traffic(self, page: str) -> int:
        """Every request went to the shop and none failed; answers how many there were."""
        own = urlsplit(self.url).netloc
        asked, requests = {}, 0
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            parameters = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                address = parameters["request"]["url"]
                asked[parameters["requestId"]] = address
                parts = urlsplit(address)
                if parts.scheme in LOCAL_SCHEMES:
                    continue
                requests += 1
                require(parts.netloc == own, f"{page} asked another host: {address}")
            elif message["method"] == "Network.loadingFailed" and not parameters.get("canceled"):
                # One that no page asked for is the browser's own, such as a look for updates.
                address = asked.get(parameters["requestId"])
                require(address is None, f"{page} could not load {address}: {parameters['errorText']}")
            elif message["method"] == "Network.responseReceived":
                response = parameters["response"]
                # Browsers ask for an icon by themselves; a page without one is no fault.
                if not response["url"].endswith("/favicon.ico"):
                    require(response["status"] < 400, f"{page}: {response['url']} is {response['status']}")
        errors = [entry["message"] for entry in self.driver.get_log("browser")
                  if entry["level"] == "SEVERE" and "favicon.ico" not in entry["message"]]
        require(not errors, f"{page} logged errors: {errors}")
        return requests


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(otherwise)


def landing_page(browser: Browser) -> None:
    browser.open("/")
    text = browser.visible("body").text
    require(len(text) > 100, f"the landing page says next to nothing: {text!r}")
    links = [link.get_dom_attribute("href")
             for link in browser.driver.find_elements(By.CSS_SELECTOR, "a[href]")]
    for wanted in ("/docs", "/openapi.json"):
        require(any(link.startswith(wanted) for link in links), f"the landing page has no link to {wanted}: {links}")
    browser.screenshot("landing")
    require(browser.check_traffic("the landing page") > 0, "the landing page was not asked for")


def documented_operations(browser: Browser) -> int:
    browser.open("/docs")
    browser.visible(".swagger-ui .info .title")
    browser.visible(".opblock")
    shown = len(browser.driver.find_elements(By.CSS_SELECTOR, ".opblock"))
    described = browser.driver.execute_async_script(
        """const done = arguments[0];
        fetch('/openapi.json').then(answer => answer.json()).then(document => done(
          Object.values(document.paths).flatMap(path => Object.keys(path)).filter(
            name => ['get', 'post', 'put', 'patch', 'delete'].includes(name)).length));"""
    )
    require(shown == described, f"Swagger UI shows {shown} of {described} operations")
    browser.screenshot("docs")
    return shown


def try_it_out(browser: Browser) -> int:
    """Lists products from within the page, as a reader would, and reads the answer off the page."""
    method, path = LIST_PRODUCTS
    blocks = browser.driver.find_elements(By.CSS_SELECTOR, f".opblock-{method}")
    named = [block for block in blocks
             if block.find_element(By.CSS_SELECTOR, ".opblock-summary-path").get_dom_attribute("data-path") == path]
    require(len(named) == 1, f"Swagger UI shows {len(named)} blocks for {method} {path}")
    block = "#" + named[0].get_dom_attribute("id")
    browser.click(f"{block} .opblock-summary-control")
    # Where trying out is on from the start, the button reads "Cancel".
    if "cancel" not in browser.visible(f"{block} .try-out__btn").get_dom_attribute("class"):
        browser.click(f"{block} .try-out__btn")
    browser.click(f"{block} .execute")
    status = browser.visible(f"{block} .live-responses-table tbody .response-col_status").text
    require(status.startswith("200"), f"listing products answered {status}")
    body = browser.visible(f"{block} .live-responses-table tbody .response-col_description pre").text
    browser.screenshot("try-it-out")
    products = json.loads(body)["products"]
    require(products, "listing products shows none")
    require(all(product["id"].startswith("prd_") and product["title"] for product in products),
            "a listed product has no id or title")
    return len(products)


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        driver = start(profile)
        try:
            browser = Browser(driver, url, folder)
            landing_page(browser)
            operations = documented_operations(browser)
            products = try_it_out(browser)
            requests = browser.check_traffic("Swagger UI")
        except BaseException:
            driver.save_screenshot(str(folder / "browser-failed.png"))
            raise
        finally:
            driver.quit()
    print(f"{operations} operations shown, {products} products listed, {requests} requests, all to the shop")


if __name__ == "__main__":
    main()
