-- Append messages to mailboxes: as many as come at once.
-- ARGV: limits of room.lua; then for each message "asked" or "owed" (whatever the room), owner,
--       sender ("" has no quota), raw message.
-- Answers 0, then OK, FULL or QUOTA for each.

local answers = { 0 }
for i = FIRST, #ARGV, 4 do
  local owner, sender, raw = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local refused = ARGV[i] == 'asked' and refusal(owner, sender, #raw)
  if not refused then append(owner, sender, raw) end
  answers[#answers + 1] = refused or 'OK'
end
write_accounts()
return answers
