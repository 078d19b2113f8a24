-- Asks authgate about the request of a transaction (HAProxy 2.5 or newer). `http-request lua.authgate URL`.

local function first(headers, name)
    local values = headers[name]
    return values and values[0]
end

core.register_action("authgate", { "http-req" }, function(txn, url)
    local headers = txn.http:req_get_headers()
    local asked = {
        ["x-forwarded-method"] = { txn.sf:method() },
        ["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" },
        ["x-forwarded-host"] = { first(headers, "host") or "" },
        -- As the client sent it.
        ["x-forwarded-uri"] = { txn.sf:pathq() },
        ["x-forwarded-for"] = { txn.sf:src() },
    }
    for _, name in ipairs({ "authorization", "x-http-method-override", "x-http-method", "x-method-override" }) do
        if first(headers, name) then
            asked[name] = { first(headers, name) }
        end
    end
    -- Several of what may stand there once are no credential.
    if headers["authorization"] and headers["authorization"][1] then
        asked["authorization"] = nil
    end
    local answer = core.httpclient():get { url = url, headers = asked, timeout = 2000 }
    local status = answer and answer.status or 0
    txn:set_var("txn.authgate_status", status)
    for _, name in ipairs({ "x-user-id", "x-user-name", "x-user-roles" }) do
        txn.http:req_del_header(name)
        local value = answer and answer.headers and first(answer.headers, name)
        if status == 200 and value and value ~= "" then
            txn.http:req_add_header(name, value)
        end
    end
end, 1)
