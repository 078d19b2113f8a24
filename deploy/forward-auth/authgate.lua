-- Asks authgate about the request of a transaction (HAProxy 2.5 or newer). `http-request lua.authgate URL`.

-- What a client may not say of itself, nor of another method, in any spelling that CGI, WSGI or PHP take for one. The first are the
-- identity headers; add what else the application believes.
local stripped = {
    "^x%-user%-", "^remote%-", "^x%-auth%-request%-", "^x%-webauth%-", "^x%-forwarded%-", "^x%-original%-", "^forwarded$",
    "^x%-http%-method", "^x%-method%-override$",
}

local function first(headers, name)
    local values = headers[name]
    return values and values[0]
end

-- What tells of a caller beside Authorization, and where a browser's request comes from.
local told = { "x-api-key", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "accept", "upgrade", "sec-websocket-key" }

-- All lines of a header, as one.
local function joined(headers, name, separator)
    local values, lines = headers[name], {}
    for index = 0, values and #values or -1 do
        lines[#lines + 1] = values[index]
    end
    return #lines > 0 and table.concat(lines, separator) or nil
end

-- Cookies without those of authgate.
local function others(cookies)
    local kept = {}
    for cookie in cookies:gmatch("[^;]+") do
        local text = cookie:gsub("^%s+", "")
        if not (text:find("^__Host%-authgate") or text:find("^__Secure%-authgate")) then
            kept[#kept + 1] = text
        end
    end
    return table.concat(kept, "; ")
end

core.register_action("authgate", { "http-req" }, function(txn, url)
    local headers = txn.http:req_get_headers()
    for name in pairs(headers) do
        local folded = name:lower():gsub("[^%w]", "-")
        for _, pattern in ipairs(stripped) do
            if folded:find(pattern) then
                txn.http:req_del_header(name)
                break
            end
        end
    end
    -- Two of them are none.
    local authorization = headers["authorization"]
    if authorization and authorization[1] then
        return txn:set_var("txn.authgate_status", 401)
    end
    local asked = {
        ["x-forwarded-method"] = { txn.sf:method() },
        ["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" },
        ["x-forwarded-host"] = { first(headers, "host") or "" },
        -- As it goes on.
        ["x-forwarded-uri"] = { txn.sf:pathq() },
        ["x-forwarded-for"] = { txn.sf:src() },
    }
    if authorization then
        asked["authorization"] = { authorization[0] }
    end
    for _, name in ipairs(told) do
        local value = joined(headers, name, ", ")
        asked[name] = value and { value } or nil
    end
    local cookies = joined(headers, "cookie", "; ")
    if cookies then
        asked["cookie"] = { cookies }
        txn.http:req_set_header("cookie", others(cookies))
    end
    local answer = core.httpclient():get { url = url, headers = asked, timeout = 2000 }
    local status = answer and answer.status or 0
    txn:set_var("txn.authgate_status", status)
    local told_back = answer and answer.headers or {}
    for status_of, name in pairs({ [200] = "set-cookie", [303] = "location" }) do
        local value = first(told_back, name)
        if status == status_of and value then
            txn:set_var("txn.authgate_" .. name:gsub("%-", "_"), value)
        end
    end
    for _, name in ipairs({ "x-user-id", "x-user-name", "x-user-roles" }) do
        local value = answer and answer.headers and first(answer.headers, name)
        if status == 200 and value and value ~= "" then
            txn.http:req_add_header(name, value)
        end
    end
end, 1)
