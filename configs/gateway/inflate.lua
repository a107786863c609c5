-- Decompresses the beginning of a body with gzip or deflate (RFC 1950 to 1952), for user.lua, which follows in the
-- same script. The beginning contains the customer, and a decompression bomb is never decompressed as a whole.

local band, rshift, lshift = bit.band, bit.rshift, bit.lshift
local ENOUGH = 8192 -- bytes of output
local LENGTH = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
local LENGTH_BITS = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
local DISTANCE = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
local ORDER = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} -- of the code lengths' lengths

-- Canonical Huffman codes: the number of codes of each length, and the symbols in the order of their codes.
local function huffman(lengths, first, last)
  local count, offset, symbols = {}, {}, {}
  for size = 0, 15 do count[size] = 0 end
  for i = first, last do count[lengths[i]] = count[lengths[i]] + 1 end
  offset[1] = 0
  for size = 1, 14 do offset[size + 1] = offset[size] + count[size] end
  for i = first, last do
    local size = lengths[i]
    if size > 0 then
      symbols[offset[size]] = i - first
      offset[size] = offset[size] + 1
    end
  end
  return {count = count, symbols = symbols}
end

local FIXED, FIXED_DISTANCE
do
  local lengths = {}
  for i = 0, 287 do lengths[i] = (i < 144 or i > 279) and 8 or i < 256 and 9 or 7 end
  FIXED = huffman(lengths, 0, 287)
  for i = 0, 29 do lengths[i] = 5 end
  FIXED_DISTANCE = huffman(lengths, 0, 29)
end

-- Reads bits from `text`; raises an error at its end.
local function reader(text, position)
  local held, count = 0, 0
  local self = {}
  function self.bits(wanted)
    while count < wanted do
      local byte = string.byte(text, position)
      if byte == nil then error("short") end
      held, count, position = held + lshift(byte, count), count + 8, position + 1
    end
    local value = band(held, lshift(1, wanted) - 1)
    held, count = rshift(held, wanted), count - wanted
    return value
  end
  function self.symbol(codes)
    local code, first, index = 0, 0, 0
    for size = 1, 15 do
      code = code + self.bits(1)
      local of_size = codes.count[size]
      if code - first < of_size then return codes.symbols[index + code - first] end
      index, first, code = index + of_size, (first + of_size) * 2, code * 2
      if size == 15 then error("no code") end
    end
  end
  function self.bytes(out, length)
    held, count = 0, 0 -- a stored block begins at a byte
    position = position + 4
    for i = position, math.min(position + length, position + ENOUGH) - 1 do
      local byte = string.byte(text, i)
      if byte == nil then error("short") end
      out[#out + 1] = byte
    end
    position = position + length
  end
  function self.stored_length()
    local low, high = string.byte(text, position, position + 1)
    if high == nil then error("short") end
    return low + high * 256
  end
  return self
end

local function dynamic(input)
  local literals, distances, codes = input.bits(5) + 257, input.bits(5) + 1, input.bits(4) + 4
  local lengths = {}
  for i = 0, 18 do lengths[i] = 0 end
  for i = 1, codes do lengths[ORDER[i]] = input.bits(3) end
  local of_lengths = huffman(lengths, 0, 18)
  lengths = {}
  local at = 0
  while at < literals + distances do
    local symbol = input.symbol(of_lengths)
    local value, times = symbol, 1
    if symbol == 16 then
      value, times = lengths[at - 1], 3 + input.bits(2)
    elseif symbol == 17 then
      value, times = 0, 3 + input.bits(3)
    elseif symbol == 18 then
      value, times = 0, 11 + input.bits(7)
    end
    for _ = 1, times do
      lengths[at] = value
      at = at + 1
    end
  end
  return huffman(lengths, 0, literals - 1), huffman(lengths, literals, literals + distances - 1)
end

local function block(input, out, literals, distances)
  while #out < ENOUGH do
    local symbol = input.symbol(literals)
    if symbol == 256 then return end
    if symbol < 256 then
      out[#out + 1] = symbol
    else
      local length = LENGTH[symbol - 256] + input.bits(LENGTH_BITS[symbol - 256])
      local far = input.symbol(distances)
      local distance = DISTANCE[far + 1] + input.bits(far < 4 and 0 or math.floor(far / 2) - 1)
      local from = #out - distance
      if from < 0 then error("too far back") end
      for i = 1, length do out[#out + 1] = out[from + i] end
    end
  end
end

local function inflate(text, position, out)
  local input = reader(text, position)
  repeat
    local last, kind = input.bits(1), input.bits(2)
    if kind == 0 then input.bytes(out, input.stored_length())
    elseif kind == 1 then block(input, out, FIXED, FIXED_DISTANCE)
    elseif kind == 2 then block(input, out, dynamic(input))
    else error("no kind of block") end
  until last == 1 or #out >= ENOUGH
end

-- The position of the compressed data after the header of gzip or zlib; 1 for raw deflate.
local function data_begin(text)
  local first, second, _, flags = string.byte(text, 1, 4)
  if first == 31 and second == 139 and flags ~= nil then
    local position = 11
    if band(flags, 4) ~= 0 then
      local low, high = string.byte(text, position, position + 1)
      position = position + 2 + (low or 0) + (high or 0) * 256
    end
    for _, flag in ipairs({8, 16}) do -- fields of the header: a file's name, a comment
      if band(flags, flag) ~= 0 then position = (string.find(text, "\0", position, true) or #text) + 1 end
    end
    if band(flags, 2) ~= 0 then position = position + 2 end
    return position
  end
  if first ~= nil and second ~= nil and band(first, 15) == 8 and (first * 256 + second) % 31 == 0 then return 3 end
  return 1
end

-- The first decompressed bytes of `text`, as far as they can be read.
local function decompressed(text)
  local out = {}
  pcall(inflate, text, data_begin(text), out)
  local parts = {}
  for i = 1, #out, 4096 do
    parts[#parts + 1] = string.char(unpack(out, i, math.min(i + 4095, #out)))
  end
  return table.concat(parts)
end
