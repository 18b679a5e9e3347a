package android.content

import android.content.res.AssetManager
import android.net.Uri
import java.io.File
import java.io.InputStream
import java.io.OutputStream

abstract class Context {
    abstract val assets: AssetManager
    abstract val applicationContext: Context
    abstract val contentResolver: ContentResolver
    abstract val filesDir: File
    abstract val noBackupFilesDir: File

    abstract fun getExternalFilesDir(type: String?): File?

    abstract fun getSharedPreferences(name: String, mode: Int): SharedPreferences

    fun getString(id: Int): String = TODO()
}

abstract class ContentResolver {
    fun openInputStream(uri: Uri): InputStream? = TODO()

    fun openOutputStream(uri: Uri): OutputStream? = TODO()
}

interface SharedPreferences {
    fun getString(key: String, otherwise: String?): String?

    fun edit(): Editor

    interface Editor {
        fun putString(key: String, value: String?): Editor

        fun apply()
    }
}
