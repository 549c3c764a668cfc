"""The Lua program that reads testers' signed cookies: Envoy has no HMAC of its own, so SHA-256 is here (FIPS 180-4).

Before it stand `KEY_FILE`, `PREFIX` (how all these cookies' names begin) and `ASKED`, from a cookie's name to the
header that a good one is told in. Only a request with such a cookie costs anything. Of each cookie the first counts.
Every one of them is taken away, good or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

_WORD = 32


def _primes() -> Iterator[int]:
    number = 2
    while True:
        if all(number % smaller for smaller in range(2, math.isqrt(number) + 1)):
            yield number
        number += 1


def _cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


def _constants() -> tuple[list[int], list[int]]:
    """The first 32 bits of the fractions of the primes' square roots (8 of them) and cube roots (64): 4.2.2, 5.3.3."""
    numbers = [prime for prime, _ in zip(_primes(), range(64), strict=False)]
    mask = (1 << _WORD) - 1
    starts = [math.isqrt(prime << (2 * _WORD)) & mask for prime in numbers[:8]]
    return starts, [_cube_root(prime << (3 * _WORD)) & mask for prime in numbers]


_STARTS, _ROUNDS = (", ".join(map(str, numbers)) for numbers in _constants())

PROGRAM = f"""\
local bit = require("bit")
local band, bnot, bxor, ror, rshift, tobit = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift, bit.tobit
local START, ROUND = {{{_STARTS}}}, {{{_ROUNDS}}}

local function word(number)
  local function byte(by) return band(rshift(number, by), 255) end
  return string.char(byte(24), byte(16), byte(8), byte(0))
end

local function sha256(text)
  local length = #text
  text = text .. "\\128" .. string.rep("\\0", (55 - length) % 64) .. word(0) .. word(length * 8)
  local hash, w = {{}}, {{}}
  for i = 1, 8 do hash[i] = tobit(START[i]) end
  for chunk = 1, #text, 64 do
    for i = 1, 16 do
      local a, b, c, d = string.byte(text, chunk + i * 4 - 4, chunk + i * 4 - 1)
      w[i] = tobit(a * 16777216 + b * 65536 + c * 256 + d)
    end
    for i = 17, 64 do
      local x, y = w[i - 15], w[i - 2]
      local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
      local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
      w[i] = tobit(w[i - 16] + s0 + w[i - 7] + s1)
    end
    local a, b, c, d, e, f, g, h = unpack(hash)
    for i = 1, 64 do
      local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
      local choice = bxor(band(e, f), band(bnot(e), g))
      local one = tobit(h + s1 + choice + tobit(ROUND[i]) + w[i])
      local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
      local most = bxor(band(a, b), band(a, c), band(b, c))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + one), c, b, a, tobit(one + s0 + most)
    end
    for i, each in ipairs({{a, b, c, d, e, f, g, h}}) do hash[i] = tobit(hash[i] + each) end
  end
  local found = {{}}
  for i = 1, 8 do found[i] = word(hash[i]) end
  return table.concat(found)
end

local inner, outer
local file = KEY_FILE ~= "" and io.open(KEY_FILE, "rb")
if file then
  local key = file:read("*a"):match("^%s*(.-)%s*$")
  file:close()
  if #key > 64 then key = sha256(key) end
  local function padded(with)
    return (key .. string.rep("\\0", 64 - #key)):gsub(".", function(c) return string.char(bxor(c:byte(), with)) end)
  end
  if key ~= "" then inner, outer = padded(54), padded(92) end
end

local function same(one, other)
  local different = #one == #other and 0 or 1
  for i = 1, math.min(#one, #other) do different = bit.bor(different, bxor(one:byte(i), other:byte(i))) end
  return different == 0
end

local function good(name, value)
  if not inner or #value > 400 then return nil end
  local said, service, version, ends, signature = value:match("^(([^:]+):([^:]+):(%d+)):(%x+)$")
  if not said or PREFIX .. service ~= name or #ends > 12 or tonumber(ends) <= os.time() then return nil end
  local hex = sha256(outer .. sha256(inner .. said)):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  return same(hex, signature) and version or nil
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local kept, seen, ours = {{}}, {{}}, false
  for i = 0, headers:getNumValues("cookie") - 1 do
    for cookie in headers:getAtIndex("cookie", i):gmatch("[^;]+") do
      local name, value = cookie:match("^%s*([^=]-)%s*=%s*(.-)%s*$")
      if name and ASKED[name] then
        ours = true
        if not seen[name] then
          seen[name] = true
          local version = good(name, value)
          if version then headers:replace(ASKED[name], version) end
        end
      else
        kept[#kept + 1] = cookie:match("^%s*(.-)%s*$")
      end
    end
  end
  if ours then
    headers:remove("cookie")
    if #kept > 0 then headers:add("cookie", table.concat(kept, "; ")) end
    handle:metadata()  -- of the route: it is chosen again here, before the next filter takes our headers away
  end
end
"""
