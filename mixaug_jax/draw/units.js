// The unit browser: filters, sorts and shows the units of the JSON beside it. A block, so that its names are its own.
{
  const PAGE = 10; // units that Page Up and Page Down pass
  const STEP = 85; // between the grays of a mask: 1 unit on, 2 concept, 3 both
  const THUMB = 44; // side of a picture in the list [CSS pixels]
  const SIDE = 142; // the same beside it

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  const short = (number) => String(Number(number.toPrecision(3)));

  const concept = (unit, rank = 0) =>
    unit.concepts.length > rank ? unit.layer.names[unit.concepts[rank][0]] : ["", ""];

  const iou = (unit) => (unit.concepts.length ? unit.concepts[0][1] : 0);

  // The largest drop of any class's accuracy on training images; what was not removed comes last.
  const importance = (unit) => (unit.classes?.length ? unit.classes[0][1] : -2);

  const anchor = (unit) => `unit-${unit.layer.layer}-${unit.unit}`;

  // Sheets are decoded when their first picture is asked for.
  const decoded = new Map();
  function sheet(address) {
    if (!decoded.has(address)) {
      const image = new Image();
      image.src = address;
      decoded.set(address, image.decode().then(() => image));
    }
    return decoded.get(address);
  }

  async function cell(layer, addresses, number) {
    const image = await sheet(addresses[Math.floor(number / layer.perSheet)]);
    const within = number % layer.perSheet;
    const [height, width] = layer.size;
    const left = (within % layer.columns) * width;
    const top = Math.floor(within / layer.columns) * height;
    const canvas = element("canvas", { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  }

  // What lies outside the unit's mask is dark and pale, but not black: it stays recognizable.
  function darken(photo, mask) {
    const data = photo.data;
    for (let k = 0; k < data.length; k += 4) {
      if (Math.round(mask.data[k] / STEP) & 1) continue;
      const gray = (data[k] + data[k + 1] + data[k + 2]) / 3;
      for (let c = k; c < k + 3; c++) data[c] = 0.125 * (data[c] + gray) + 25;
    }
  }

  function outline(context, mask, scale, thick) {
    const { width, height, data } = mask;
    const inside = (row, column) =>
      row >= 0 && column >= 0 && row < height && column < width &&
      Math.round(data[4 * (row * width + column)] / STEP) & 2;
    context.beginPath();
    for (let row = 0; row <= height; row++) {
      for (let column = 0; column <= width; column++) {
        const here = Boolean(inside(row, column));
        if (column < width && here !== Boolean(inside(row - 1, column))) {
          context.moveTo(column * scale, row * scale);
          context.lineTo((column + 1) * scale, row * scale);
        }
        if (row < height && here !== Boolean(inside(row, column - 1))) {
          context.moveTo(column * scale, row * scale);
          context.lineTo(column * scale, (row + 1) * scale);
        }
      }
    }
    // White on black shows on any ground.
    context.lineCap = "square";
    for (const [color, line] of [["#000", 3], ["#fff", 1.4]]) {
      context.strokeStyle = color;
      context.lineWidth = line * thick * devicePixelRatio;
      context.stroke();
    }
  }

  async function draw(canvas, unit, place, masked) {
    const { layer } = unit;
    const [number] = unit.images[place];
    const photo = await cell(layer, layer.sheets, number);
    const mask = masked ? await cell(layer, layer.masks, unit.first + place) : null;
    if (mask) darken(photo, mask);
    const small = element("canvas", { width: photo.width, height: photo.height });
    small.getContext("2d").putImageData(photo, 0, 0);
    const side = canvas.dataset.side * devicePixelRatio;
    const scale = side / Math.max(photo.width, photo.height);
    canvas.width = Math.round(scale * photo.width);
    canvas.height = Math.round(scale * photo.height);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    if (mask) outline(context, mask, scale, canvas.dataset.side > THUMB ? 1 : 0.6);
    canvas.dataset.drawn = masked ? "masked" : "photo";
  }

  function verdict(unit) {
    if (unit.dead) return "dead: it is above its threshold nowhere";
    const [name, category] = concept(unit);
    if (!name) return "on, but nowhere on a concept";
    const detects = iou(unit) > unit.layer.detects;
    const least = detects ? "" : `, not above ${unit.layer.detects}`;
    return `${detects ? "detects" : "is nearest to"} ${name} (${category}): IoU ${iou(unit).toFixed(3)}${least}`;
  }

  function pictures(unit, place) {
    const [number, strength, shows] = unit.images[place];
    const [index, file] = unit.layer.photos[number];
    const title = file ? `image ${index}, ${file}` : `image ${index}`;
    const [name] = concept(unit);
    const line = shows ? `white line: ${name}` : `without ${name}`;
    const names = [title, `${title}, bright where unit ${unit.unit} is on; ${line}`];
    const canvases = names.map((label, masked) => {
      const canvas = element("canvas", { role: "img", "aria-label": label, "data-side": SIDE });
      draw(canvas, unit, place, masked === 1);
      return canvas;
    });
    const said = `${title} · activation ${short(strength)}${shows ? "" : ` · ${line}`}`;
    return element("li", {}, element("figure", {},
      element("div", { class: "units-pair" }, ...canvases), element("figcaption", {}, said)));
  }

  // A table whose last column draws the second: its largest number has a whole bar.
  function bars(caption, header, rows, digits) {
    const most = Math.max(...rows.map(([, value]) => value), 1e-12);
    const head = header.map((name, k) => element("th", { scope: "col", class: k ? "number" : "" }, name));
    const lines = rows.map(([name, ...numbers]) => {
      const bar = element("span", { class: "units-bar" });
      bar.style.width = `${100 * Math.max(0, numbers[0]) / most}%`;
      const cells = numbers.map((value) => element("td", { class: "number" }, value.toFixed(digits)));
      return element("tr", {}, element("th", { scope: "row" }, name), ...cells,
        element("td", { "aria-hidden": "true" }, bar));
    });
    head.push(element("td", { "aria-hidden": "true" }));
    return element("div", { class: "units-table" }, element("table", {},
      element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...lines)));
  }

  // What a unit is, beside its pictures: only what was measured.
  function profile(unit) {
    const { names, classes } = unit.layer;
    const rows = unit.concepts.map(([c, value]) => [`${names[c][0]} (${names[c][1]})`, value]);
    const parts = rows.length ? [bars("overlap with concepts", ["concept", "IoU"], rows, 3)] : [];
    if (unit.classes?.length) {
      const lost = unit.classes.map(([k, ...drops]) => [classes[k], ...drops.map((drop) => 100 * drop)]);
      parts.push(bars("without the unit a class loses, points",
        ["class", "training", "other images"], lost, 1));
    }
    return element("div", { class: "units-tables" }, ...parts);
  }

  function notes(unit) {
    const facts = [`threshold ${short(unit.threshold)}`, `on in ${short(100 * unit.area)} % of the pixels`];
    const [name] = concept(unit);
    if (unit.fits) {
      const [precise, recalled] = unit.fits.map((share) => `${short(100 * share)} %`);
      facts.push(`${precise} of these show ${name}, and it is on in ${recalled} of the pixels that do`);
    }
    if (unit.selective) {
      const [k, index] = unit.selective;
      facts.push(`most active for the class ${unit.layer.classes[k]}: selectivity ${index.toFixed(2)}`);
    }
    return facts.join(" · ");
  }

  function form(unit) {
    const [text, value, above] = unit.form;
    const { chance } = unit.layer;
    const judged = above === null ? "" : `, ${above ? "above" : "not above"} the ${chance.toFixed(3)} of chance`;
    return element("p", { class: "units-form" }, "best form: ", element("strong", {}, text), ` · IoU ${value.toFixed(3)}${judged}`);
  }

  function show(unit, detail) {
    const parts = [
      element("h4", {}, `Unit ${unit.unit} of ${unit.layer.layer}`),
      element("p", { class: "units-verdict" }, verdict(unit)),
      element("p", { class: "note" }, `${notes(unit)} · `,
        element("a", { href: `#${encodeURIComponent(anchor(unit))}` }, "link to this unit")),
    ];
    if (unit.form) parts.splice(2, 0, form(unit));
    if (unit.images.length)
      parts.push(element("ul", { class: "units-images", "aria-label": "top images" },
        ...unit.images.map((_, place) => pictures(unit, place))));
    else if (!unit.dead)
      parts.push(element("p", { class: "note" }, "Its pictures are not there; the stage dissect makes them."));
    if (!unit.dead) parts.push(profile(unit));
    detail.replaceChildren(...parts);
  }

  function option(unit) {
    const [name, category] = concept(unit);
    const what = unit.dead ? "dead" : name ? `${name} (${category})` : "no concept";
    const thumb = element("canvas", { "aria-hidden": "true", "data-side": THUMB });
    const text = element("span", {},
      element("strong", {}, `${unit.layer.layer} · ${unit.unit}`), " ", element("span", {}, what));
    // Called by what is seen, the spaces between its parts included.
    return element("div", { role: "option", id: anchor(unit), tabindex: -1, "aria-selected": "false" },
      thumb, text, " ", element("span", { class: "number" }, unit.dead ? "" : iou(unit).toFixed(3)));
  }

  // Ties stand in the order of the layers and of the numbers.
  const last = (text) => text || "\uffff";
  const ORDERS = {
    iou: (a, b) => iou(b) - iou(a),
    unit: (a, b) => a.unit - b.unit,
    concept: (a, b) => last(concept(a)[0]).localeCompare(last(concept(b)[0])) || iou(b) - iou(a),
    threshold: (a, b) => b.threshold - a.threshold,
    area: (a, b) => b.area - a.area,
    importance: (a, b) => importance(b) - importance(a) || iou(b) - iou(a),
  };

  function start(root) {
    const layers = [...root.querySelectorAll(".units-data")].map((block) => JSON.parse(block.textContent));
    const units = layers.flatMap((layer) => layer.units.map((unit) => Object.assign(unit, { layer })));
    const form = root.querySelector("form");
    const list = root.querySelector("[role=listbox]");
    const detail = root.querySelector(".units-detail");
    const status = root.querySelector("[role=status]");
    let shown = [];
    let chosen = null;
    const drawing = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        drawing.unobserve(target);
        draw(target.firstChild, target.unit, 0, true);
      }
    }, { root: list, rootMargin: "200px" });
    for (const unit of units) {
      unit.node = option(unit);
      unit.node.unit = unit;
      if (unit.images.length) drawing.observe(unit.node);
    }

    function choose(unit, { focus = false, address = false } = {}) {
      for (const [other, is] of [[chosen, false], [unit, true]]) {
        if (!other) continue;
        other.node.setAttribute("aria-selected", String(is));
        other.node.tabIndex = is ? 0 : -1;
      }
      if (unit && unit !== chosen) show(unit, detail);
      if (!unit) detail.replaceChildren();
      chosen = unit;
      if (!unit) return;
      // The list alone is scrolled, not the page.
      const { offsetTop: top, offsetHeight: height } = unit.node;
      if (top < list.scrollTop) list.scrollTop = top;
      if (top + height > list.scrollTop + list.clientHeight) list.scrollTop = top + height - list.clientHeight;
      if (focus) unit.node.focus({ preventScroll: true });
      if (address) history.replaceState(null, "", `#${encodeURIComponent(anchor(unit))}`);
    }

    function update() {
      const f = form.elements;
      const word = f.concept.value.trim().toLowerCase();
      const least = Number(f.iou.value) || 0;
      shown = units.filter((unit) => {
        const [name, category] = concept(unit);
        return (
          (!f.layer.value || unit.layer.layer === f.layer.value) &&
          (!f.category.value || category === f.category.value) &&
          name.toLowerCase().includes(word) &&
          iou(unit) >= least &&
          (!f.state.value || unit.dead === (f.state.value === "dead"))
        );
      }).sort(ORDERS[f.order.value]);
      list.replaceChildren(...shown.map((unit) => unit.node));
      status.textContent = `${shown.length} of ${units.length} units`;
      choose(shown.includes(chosen) ? chosen : shown[0] ?? null);
    }

    function open() {
      let wanted = location.hash.slice(1);
      try {
        wanted = decodeURIComponent(wanted);
      } catch {
        return; // no address of ours
      }
      const unit = units.find((one) => anchor(one) === wanted);
      if (!unit) return;
      // A unit that is filtered out could not be shown.
      if (!shown.includes(unit)) {
        form.reset();
        update();
      }
      choose(unit, { focus: true });
      root.querySelector(".units-panes").scrollIntoView({ block: "nearest" });
    }

    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    list.addEventListener("click", (event) => {
      const node = event.target.closest("[role=option]");
      if (node) choose(node.unit, { focus: true, address: true });
    });
    list.addEventListener("keydown", (event) => {
      const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE, Home: -Infinity, End: Infinity };
      if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey || !shown.length) return;
      event.preventDefault();
      const place = shown.indexOf(chosen) + moves[event.key];
      choose(shown[Math.min(Math.max(place, 0), shown.length - 1)], { focus: true, address: true });
    });
    root.querySelector(".units-app").hidden = false;
    update();
    open();
    addEventListener("hashchange", open);
  }

  for (const root of document.querySelectorAll(".units")) {
    if (root.querySelector(".units-data")) start(root);
  }
}
